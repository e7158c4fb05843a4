"""The answer to "is this token good, and for what?"."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import NoReturn

from watchword.identity import Identity
from watchword.network import Networks


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


@dataclass(frozen=True, slots=True)
class Bindings:
    """What calls with a token have to match: all that is given."""

    allowed_networks: Networks = field(default_factory=Networks)
    """One of them has to hold the caller's address; empty: from anywhere."""
    certificate_sha256: bytes = b""
    """Of the certificate that the caller's connection was made with; empty: any or none."""

    def match(self, address: str, certificate_sha256: bytes) -> bool:
        """Whether a call from `address` over a connection with that client certificate matches. What is not known is
        empty, and matches nothing that is asked for.
        """
        return (not self.allowed_networks or self.allowed_networks.hold(address)) and (
            not self.certificate_sha256 or hmac.compare_digest(self.certificate_sha256, certificate_sha256)
        )


@dataclass(frozen=True, slots=True)
class Bound(_NotATruth):
    """The token is bound: `verdict` holds for calls that match, for all others it is inactive.

    Not an Active, so that whoever knows nothing of bindings admits nobody. The interceptors know.
    """

    bindings: Bindings
    verdict: Active | Insufficient


Verdict = Active | Insufficient | Inactive | Bound


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
