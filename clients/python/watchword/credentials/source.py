"""Where a caller's token comes from. Asked at every call, so that a token can be replaced under a running process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

# Far above any token; a wrong path to a large file is refused, not read into memory and sent.
TOKEN_FILE_BYTES_MAX: Final = 8_192


class TokenSourceError(Exception):
    """There is no token to send. Says where it was looked for, never what was found there."""


class TokenSource(Protocol):
    """Gives the token to send with the next call."""

    def token(self) -> str:
        """The whole token, without scheme or white space. Quick and thread-safe. Raises TokenSourceError."""
        ...


class StaticToken:
    """A token given as a string."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        self._token: Final = _checked(token, "the token given")

    def token(self) -> str:
        """See TokenSource."""
        return self._token

    def __repr__(self) -> str:
        return "StaticToken(...)"


class TokenFile:
    """A token in a file, read again whenever the file changes (its inode, size or time): a secret store may renew it.

    Looks at the file at every call and reads it only after a change. A file that is missing, empty or unreadable is an
    error and not a reason to go on with the old token: somebody may have taken it away on purpose.
    """

    __slots__ = ("_path", "_read")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path: Final = Path(path)
        # What was read, with the marks of the file it came from; replaced as one, for other threads.
        self._read: tuple[tuple[int, int, int, int], str] | None = None

    def token(self) -> str:
        """See TokenSource."""
        try:
            known = self._read
            if known is not None and known[0] == _marks(os.stat(self._path)):
                return known[1]
            with self._path.open("rb") as file:
                # Of the file that was opened, before reading: written to meanwhile, it is read again at the next call.
                marks = _marks(os.fstat(file.fileno()))
                content = file.read(TOKEN_FILE_BYTES_MAX + 1)
        except OSError as error:
            raise TokenSourceError(f"the token file {self._path} cannot be read: {error.strerror}") from None
        where = f"the token file {self._path}"
        if len(content) > TOKEN_FILE_BYTES_MAX:
            raise TokenSourceError(where + " is too large to be one")
        token = _checked(content.decode("ascii", "replace"), where)
        self._read = (marks, token)
        return token

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"


class TokenVariable:
    """A token in an environment variable, looked up at every call."""

    __slots__ = ("_name",)

    def __init__(self, name: str = "WATCHWORD_TOKEN") -> None:
        self._name: Final = name

    def token(self) -> str:
        """See TokenSource."""
        return _checked(os.environ.get(self._name, ""), f"the environment variable {self._name}")

    def __repr__(self) -> str:
        return f"TokenVariable({self._name!r})"


def _marks(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _checked(text: str, where: str) -> str:
    """One word of printable ASCII, which is all that metadata can carry. The format is the server's to judge."""
    token = text.strip()
    if not token:
        raise TokenSourceError(where + " is empty")
    if not token.isascii() or not token.isprintable() or " " in token or "," in token:
        raise TokenSourceError(where + " does not hold one token and nothing else")
    return token
