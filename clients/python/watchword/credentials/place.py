"""Where a token that renews itself is kept: a file (place_file.py), or whatever a callback hands it to."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from watchword.credentials.plugin import source_of
from watchword.credentials.source import TokenSource


def new_request_id() -> str:
    """A name for one rotation, by which a repetition is known. Drawn and not derived from the token: whoever has a copy
    of the token must not be taken for the one who repeats."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to rotate a token."""

    request_id: str
    """The same for all tries, by which the service knows a repetition."""
    number: int
    """Greater than that of every try before, whoever made it: the service tells by it which came last. The unix time
    in milliseconds, unless a clock was set back."""

    def next(self, now_ms: int) -> Attempt:
        """The one after this, made at `now_ms`."""
        return Attempt(self.request_id, max(self.number + 1, now_ms))


class PlaceError(Exception):
    """A place cannot be worked at. Says which and why, and holds nothing secret."""


class Place(Protocol):
    """Where the token is, and where the next one goes. All but `token` and `unlock` may take a moment and may raise
    PlaceError; they are called by one thread at a time.
    """

    def token(self) -> str:
        """The token that is kept there now. Quick and thread-safe. Raises TokenSourceError."""
        ...

    def unfinished(self, token_id: str) -> bool:
        """Whether somebody began to rotate this token and did not come to the end of it."""
        ...

    def lock(self) -> bool:
        """Tries to become the only one at work here, and never waits for it. Whether that worked, now or before."""
        ...

    def unlock(self) -> None:
        """Lets others. Quick, and never fails; also where nothing was locked."""
        ...

    def prepare(self, token_id: str, now_ms: int) -> Attempt:
        """How this token is to be rotated at `now_ms`, in unix milliseconds: the next after an attempt that was begun
        before, or a first one. Any later attempt will find it."""
        ...

    def forget(self) -> None:
        """No attempt to rotate this token can be repeated any more."""
        ...

    def store(self, token: str) -> Awaitable[None] | None:
        """Keeps a new token. Durable once it returns, or what it returns has been awaited. Whatever a callback raises
        comes through."""
        ...

    def stored(self, token: str) -> None:
        """`store` was successful: `token` gives the new one from here on. Quick, and never fails."""
        ...

    def begin_anew(self) -> None:
        """In the child of a fork: nothing here is this process's work."""
        ...


@dataclass(frozen=True, slots=True)
class _Current:
    token: str = field(repr=False)
    given: str = field(repr=False)
    """What the source gave when this was decided."""


class HandedToken:
    """In memory, and handed to a callback, which keeps it for the next process."""

    __slots__ = ("_attempts", "_current", "_source", "_store")

    def __init__(self, token: TokenSource | str, store: Callable[[str], Awaitable[None] | None]) -> None:
        self._source: Final = source_of(token)
        self._store: Final = store
        self._current: _Current | None = None
        self._attempts: dict[str, Attempt] = {}

    def __repr__(self) -> str:
        return f"HandedToken({self._source!r})"

    def token(self) -> str:
        """See Place. What the source gives is overridden by what was stored here, until it gives something else."""
        given, current = self._source.token(), self._current
        if current is None or current.given != given:
            current = self._current = _Current(given, given)
        return current.token

    def unfinished(self, token_id: str) -> bool:
        """See Place. This process knows of its own attempts, and of no others."""
        return False

    def lock(self) -> bool:
        """See Place."""
        return True

    def unlock(self) -> None:
        """See Place."""

    def prepare(self, token_id: str, now_ms: int) -> Attempt:
        """See Place."""
        before = self._attempts.get(token_id)
        attempt = Attempt(new_request_id(), now_ms) if before is None else before.next(now_ms)
        self._attempts = {token_id: attempt}
        return attempt

    def forget(self) -> None:
        """See Place."""
        self._attempts = {}

    def store(self, token: str) -> Awaitable[None] | None:
        """See Place."""
        return self._store(token)

    def stored(self, token: str) -> None:
        """See Place."""
        current = self._current
        self._current = _Current(token, token if current is None else current.given)

    def begin_anew(self) -> None:
        """See Place."""
        self.forget()
