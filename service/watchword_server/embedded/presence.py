"""Who uses the embedded PostgreSQL, kept by file locks: the kernel lets go of them however a process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Presence:
    """One user's place in `folder`. Two in one process are two users: the locks belong to open files."""

    def __init__(self, folder: Path, *, creates: bool = True) -> None:
        """Without `creates`, locks that are not there raise FileNotFoundError: the folder is being removed."""
        self._folder = folder
        self._flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if creates else 0)
        self._held: int | None = None

    @property
    def entered(self) -> bool:
        return self._held is not None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One user at a time starts or stops what is in the folder. Waits for its turn."""
        descriptor = self._open(".postgres.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def enter(self) -> None:
        """Becomes one of the users. Call it under `alone`."""
        descriptor = self._open(".postgres.users")
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        self._held = descriptor

    def leave(self) -> bool:
        """Stops being one. True if it was the last. Call it under `alone`."""
        assert self._held is not None
        descriptor, self._held = self._held, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def empty(self) -> bool:
        """Whether there are no users. Call it under `alone`, or the answer is old at once."""
        self.enter()
        return self.leave()

    def wait_until_empty(self) -> None:
        """Waits, for ever if need be, until there were no users for a moment."""
        descriptor = self._open(".postgres.users")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, self._flags, 0o600)
