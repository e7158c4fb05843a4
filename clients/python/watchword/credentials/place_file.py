"""A token in a file that several processes share, and that one of them at a time renews.

Beside the file (`orders.token`) lie a file to lock (`.orders.token.lock`), which stays, and, while a rotation is under
way, a note of it (`.orders.token.renewal`) and the file to be (`.orders.token.new`).

The note names the token, the request id and the number of the last try, and no secret. It is on disk before the service
is asked: a process that is killed between the answer and the file leaves a token that the service has rotated, and the
next one repeats the request, and is given another successor in place of the one that was lost. Held by
tests/client/test_renewing_killed.py.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from watchword.credentials.place import Attempt, PlaceError, new_request_id
from watchword.credentials.source import TokenFile

_PRIVATE: Final = 0o600
_NOTE_BYTES_MAX: Final = 1_024
_NOTE: Final = re.compile(r"(\S+) ([0-9A-Za-z_-]{1,128}) ([0-9]{1,18})", re.ASCII)


class SharedTokenFile:
    """See Place."""

    __slots__ = ("_file", "_locked", "_path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: Final = Path(path)
        self._file: Final = TokenFile(path)
        self._locked: int | None = None

    def __repr__(self) -> str:
        return f"SharedTokenFile({str(self._path)!r})"

    def token(self) -> str:
        """See Place, and TokenFile."""
        return self._file.token()

    def unfinished(self, token_id: str) -> bool:
        """See Place."""
        with self._named():
            return self._noted(token_id) is not None

    def lock(self) -> bool:
        """See Place."""
        if self._locked is None:
            with self._named():
                self._locked = self._lock()
        return self._locked is not None

    def _lock(self) -> int | None:
        # POSIX only. Elsewhere the library can be imported all the same.
        import fcntl

        path = self._beside("lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._give_to_owner(descriptor)
            # Somebody may have removed the file meanwhile, and others lock a new one.
            is_current = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except BlockingIOError:
            is_current = False
        except BaseException:
            os.close(descriptor)
            raise
        if not is_current:
            os.close(descriptor)
            return None
        return descriptor

    def unlock(self) -> None:
        """See Place."""
        import fcntl

        descriptor, self._locked = self._locked, None
        if descriptor is not None:
            with suppress(OSError):
                # Expressly: a forked child may hold the descriptor too, and closing this one would leave it locked.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def prepare(self, token_id: str, now_ms: int) -> Attempt:
        """See Place."""
        with self._named():
            before = self._noted(token_id)
            attempt = Attempt(new_request_id(), now_ms) if before is None else before.next(now_ms)
            try:
                self._write(self._beside("renewal"), f"{token_id} {attempt.request_id} {attempt.number}")
            except OSError:
                # The service may have rotated the token: a repetition must not fail for want of a later number.
                if before is None:
                    raise
            return attempt

    def forget(self) -> None:
        """See Place."""
        with self._named():
            self._beside("renewal").unlink(missing_ok=True)

    def store(self, token: str) -> None:
        """See Place."""
        with self._named():
            self._write(self._target(), token)

    def stored(self, token: str) -> None:
        """See Place."""
        # It names a token that is no longer here, so it says nothing any more.
        with suppress(PlaceError):
            self.forget()

    def begin_anew(self) -> None:
        """See Place."""
        descriptor, self._locked = self._locked, None
        if descriptor is not None:
            # Closed, not unlocked: the lock is the parent's.
            os.close(descriptor)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PlaceError(f"{self._path} cannot be replaced: {error.strerror}") from None

    def _noted(self, token_id: str) -> Attempt | None:
        """The last attempt that somebody made to rotate this token."""
        try:
            with self._beside("renewal").open("rb") as file:
                note = _NOTE.fullmatch(file.read(_NOTE_BYTES_MAX).decode("ascii", "replace").strip())
        except FileNotFoundError:
            return None
        return Attempt(note[2], int(note[3])) if note is not None and note[1] == token_id else None

    def _target(self) -> Path:
        # Where a link leads: it is the file that is replaced, and all that name it share what lies beside it. Whoever
        # may make the link must not thereby have us replace a file that he may not write.
        owner = os.stat(self._path).st_uid
        if not _link_owners(self._path.absolute()) <= {0, os.geteuid(), owner}:
            raise PermissionError(errno.EPERM, "a link that leads to it belongs to another user")
        return self._path.resolve()

    def _beside(self, what: str) -> Path:
        return _hidden(self._target(), what)

    def _write(self, path: Path, text: str) -> None:
        """Puts a file in place of another: whole, on disk, and for the same owner's eyes alone."""
        with _aside(path) as (aside, descriptor):
            self._give_to_owner(descriptor)
            content = text.encode("ascii") + b"\n"
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
            aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _give_to_owner(self, descriptor: int) -> None:
        """Whoever owns the token owns what replaces it. Raises where that cannot be: he could not read it any more."""
        owner, ours = os.stat(self._target()), os.fstat(descriptor)
        if owner.st_uid == ours.st_uid and owner.st_gid == ours.st_gid:
            return
        if os.geteuid() == 0:
            # Whose folder this is may have put some other file of ours here, under a second name.
            if ours.st_nlink != 1:
                raise PermissionError(errno.EPERM, "what lies beside it has another name")
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        elif owner.st_uid != ours.st_uid:
            raise PermissionError(errno.EPERM, "it belongs to another user")


@contextmanager
def _aside(path: Path) -> Iterator[tuple[Path, int]]:
    """A new private file beside `path`. Always of the same name, so that one which a kill left behind does not stay."""
    aside = _hidden(path, "new")
    aside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, _PRIVATE)
    try:
        os.fchmod(descriptor, _PRIVATE)
        yield aside, descriptor
    finally:
        os.close(descriptor)
        aside.unlink(missing_ok=True)


def _link_owners(path: Path) -> set[int]:
    """Who owns the links that `path` leads through. It leads in no circle: `stat` would have said so."""
    owners: set[int] = set()
    for one in (path, *path.parents):
        if one.is_symlink():
            owners |= {os.lstat(one).st_uid} | _link_owners(one.parent / one.readlink())
    return owners


def _hidden(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")
