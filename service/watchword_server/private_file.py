"""Writing a secret to a file: whole or not at all, for its owner's eyes alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_private_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Gives a function that puts a text at `path` with mode 0600, synced, replacing what is there in one step.

    The file to be is opened on entry: whoever makes a secret inside the block knows beforehand that there is a place
    for it. Raises OSError if there is none.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(text: str) -> None:
        with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        if path.exists():
            # Whoever could read the old file (a server under its own user) can read the new one.
            owner = path.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.chown(aside, owner.st_uid, owner.st_gid)
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    try:
        yield write
    finally:
        os.close(descriptor)
        aside.unlink(missing_ok=True)
