"""What a token that renews itself is after a fork. Run as a program by test_renewing_fork.py: no gRPC is up here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.client.forked_cache import in_child
from watchword import aio, sync
from watchword.credentials.place_file import SharedTokenFile
from watchword.credentials.renewing import Renewing
from watchword.token import new_token, new_token_id


def made() -> str:
    return new_token(new_token_id(2_000_000_000_000)).text.decode()


def both(path: Path) -> list[Renewing]:
    return [aio.RenewingToken.file(path), sync.RenewingToken.file(path)]


def gives_what_is_in_the_file_and_renews_nothing(path: Path) -> bool:
    path.write_text(made())

    def judge(token: Renewing) -> bool:
        token._see()
        knows_nothing = in_child(lambda: token.status().token_id == "" and token.token() == path.read_text())
        return knows_nothing and token.status().token_id != ""

    return all(map(judge, both(path)))


def has_not_its_parents_lock(path: Path) -> bool:
    path.write_text(made())
    (token, other) = both(path)
    if not token._place.lock():
        return False
    # Its copy of the lock is gone, without the parent's being given up; and the parent's is a lock like any other.
    kept = in_child(lambda: not token._place.lock() and not other._place.lock())
    still = not SharedTokenFile(path).lock()
    token._place.unlock()
    return kept and still and in_child(lambda: token._place.lock())


def does_not_miss_one_that_is_gone(path: Path) -> bool:
    tokens = both(path)
    del tokens
    return in_child(lambda: True)


if __name__ == "__main__":
    check: Callable[[Path], bool] = globals()[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if check(Path(folder) / "token") else 1)
