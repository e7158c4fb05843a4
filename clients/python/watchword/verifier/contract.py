"""What an interceptor asks of a verifier, so that a remote one, a caching one and a fake one are interchangeable.

`check` is all that a verifier needs. The rest is offered by those that cache, and used where it is there: `check_now`
saves the hot path a coroutine, `open_stream` ends calls that are waiting when their token ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, runtime_checkable

from watchword.verifier.verdict import Bound, Verdict

PeerName: TypeAlias = Callable[[], str]
"""gRPC's `context.peer`, or the like. Asked only when it matters: it costs more than a cached check."""


class VerifierUnavailableError(Exception):
    """The token cannot be judged now. Never means that it is good: the call is refused as UNAVAILABLE.

    `cause` is stable and holds no text from elsewhere: the name of a gRPC status (`UNAVAILABLE`, `DEADLINE_EXCEEDED`,
    `UNAUTHENTICATED` when the verifier's own token is refused), `QUEUE_FULL`, `MISSES_LIMITED`, `CLOSED`,
    `ANSWER_INVALID` or `UNJUDGED` (this token alone).
    """

    def __init__(self, cause: str) -> None:
        super().__init__("the token cannot be verified now: " + cause)
        self.cause: Final = cause


class Verifier(Protocol):
    """Judges tokens for grpc.aio servers."""

    async def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """Judges `token` as received, after the scheme, for a call that needs all `required_scopes` (no wildcards).

        The decision is made after this was called, never earlier. `peer` names the caller's address, for limits and to
        tell where tokens are used. A bound token's verdict is Bound: whether the call matches is for the one who asks.
        Raises VerifierUnavailableError.
        """
        ...


class BlockingVerifier(Protocol):
    """Judges tokens for thread-pool servers. Called from many threads at once."""

    def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """As Verifier.check, and blocks the calling thread until there is a verdict or VerifierUnavailableError."""
        ...


@runtime_checkable
class ImmediateVerifier(Protocol):
    """A verifier that may know the answer without waiting for anybody."""

    def check_now(self, token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
        """As Verifier.check where that takes no I/O, otherwise None. Never raises.

        None does not mean that `check` will ask anybody: it may want to know where the call comes from.
        """
        ...


@runtime_checkable
class BoundCounter(Protocol):
    """A verifier that wants to know what became of calls with bound tokens, which it does not judge itself."""

    def count_bound(self, bound: Bound, required_scopes: tuple[str, ...], address: str, *, is_admitted: bool) -> None:
        """To be called for each decision on a Bound verdict, with the caller's address, empty if it is not known. Never
        raises.
        """
        ...


class OpenStream(Protocol):
    """A stream that a verifier keeps an eye on."""

    def close(self) -> None:
        """The stream has ended by itself. May be called twice."""
        ...


@runtime_checkable
class StreamGates(Protocol):
    """A verifier that learns when tokens end, and can end the streams that were opened with them."""

    def open_stream(self, token: str, required_scopes: tuple[str, ...], shut: Callable[[Verdict], None]) -> OpenStream:
        """Calls `shut` once, with what the token is now, when it is no longer what the stream was opened with.

        To be called before the stream's first check: a revocation between the two would be missed. `shut` is called
        from anywhere, with the verifier's locks held: it must not block, and must not ask the verifier. When it has
        returned, no further message of the stream may pass.
        """
        ...
