"""Running PostgreSQL for root: it refuses root, so it gets a system account, and no more access than it needs."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ACCOUNT: Final = "watchword-postgres"
_COMMAND_TIMEOUT_SECONDS: Final = 30


class AccountError(Exception):
    """PostgreSQL cannot be given an account to run as. The text says what to do."""


def server_account() -> pwd.struct_passwd | None:
    """The account PostgreSQL runs as, made on first use, or None if this process is not root and its own serves."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        pass
    advice = (
        f"PostgreSQL does not run as root, and the account {ACCOUNT} could not be made for it: run the server as an"
        " ordinary user, or give WATCHWORD_DATABASE_URL"
    )
    command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", ACCOUNT]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_COMMAND_TIMEOUT_SECONDS)  # noqa: S603 (fixed)
    except (OSError, subprocess.SubprocessError):
        # Another server may have made it meanwhile: what counts is that it is there.
        try:
            return pwd.getpwnam(ACCOUNT)
        except KeyError:
            raise AccountError(advice) from None
    return pwd.getpwnam(ACCOUNT)


def refuse_foreign(folder: Path, uid: int) -> None:
    """Raises AccountError unless `folder` belongs to `uid`.

    Whoever owns a folder owns what is put into it, whatever its mode: root would leave the keyring and the
    administrator's token with somebody who made the folder beforehand.
    """
    owner = folder.stat().st_uid
    if owner != uid:
        raise AccountError(
            f"{folder} belongs to user {owner}, who could take the secrets in it: run the server as that user, chown"
            " the folder and all that is in it, or choose another WATCHWORD_DATA_DIR"
        )


def let_through(paths: Iterable[Path]) -> list[Path]:
    """Lets other accounts pass through the folders above `paths`, and returns those that were changed.

    Only the right to pass (`o+x`) is added, never to list or read: what lies in such a folder stays as closed as its
    own mode makes it.
    """
    opened: list[Path] = []
    for path in paths:
        for folder in reversed(path.resolve().parents):
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
                opened.append(folder)
    return opened
