"""The answer to "is this token good, and for what?"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from watchword.identity import Identity


class _NotATruth:
    """Every verdict is an answer, and a plain object is true: `if verdict:` would admit everybody."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a verdict is neither true nor false: ask isinstance(verdict, Active)")


@dataclass(frozen=True, slots=True)
class Active(_NotATruth):
    """The token is good and holds every required scope."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Insufficient(_NotATruth):
    """The token is good and lacks scopes."""

    identity: Identity
    missing_scopes: tuple[str, ...]
    """Of those required, in the order asked."""


@dataclass(frozen=True, slots=True)
class Inactive(_NotATruth):
    """The token is not good, here and now, for this service. Callers are not told more (RFC 7662 section 2.2)."""

    malformed: bool = False
    """It is no token at all, by its shape and checksum, which anybody can compute: this much may be told."""


Verdict = Active | Insufficient | Inactive


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the sequence of revocations an answer was read. Comparable within one epoch only."""

    epoch: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict together with what a cache has to know about it."""

    verdict: Verdict
    position: Position
    cacheable_for_seconds: float
    """Counted from when the request was sent; 0: not at all."""
    remaining_seconds: float
    """Until the token expires, by the authority's clock at the read; 0 where it is not active."""

    def __bool__(self) -> NoReturn:
        raise TypeError("an answer is neither true nor false: look at its verdict")
