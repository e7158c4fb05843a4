"""Writing a secret to a file: whole or not at all, on disk, for its owner's eyes alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class PrivateFileError(Exception):
    """There is no place for the secret. The text says where and why."""


@contextmanager
def replace_private_file(path: Path) -> Iterator[Callable[[str | Iterable[str]], None]]:
    """Gives a function that puts a text, or the parts of one, at `path` with mode 0600, replacing what is there in one
    step, with the last part.

    The file to be is opened on entry: whoever makes a secret inside the block knows beforehand that there is a place
    for it. Raises PrivateFileError if there is none.
    """
    with _aside(path) as (aside, descriptor):

        def write(text: str | Iterable[str]) -> None:
            _write(descriptor, (text,) if isinstance(text, str) else text)
            if path.exists():
                # Whoever could read the old file (a server under its own user) can read the new one. By the descriptor:
                # in a folder of his, by now something else may lie aside.
                owner = path.stat()
                if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            aside.replace(path)
            _sync_folder(path.parent)

        yield write


def create_private_file(path: Path, text: str) -> None:
    """Puts a text at `path` with mode 0600, unless something is there by then. Raises PrivateFileError."""
    with _aside(path) as (aside, descriptor):
        _write(descriptor, (text,))
        # Linked, which unlike a rename cannot replace: of two processes that race, one wins and both find its file.
        with suppress(FileExistsError):
            os.link(aside, path)
        _sync_folder(path.parent)


@contextmanager
def _aside(path: Path) -> Iterator[tuple[Path, int]]:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PrivateFileError(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        yield aside, descriptor
    finally:
        os.close(descriptor)
        aside.unlink(missing_ok=True)


def _write(descriptor: int, parts: Iterable[str]) -> None:
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as opened:
        opened.writelines(parts)
        opened.flush()
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
