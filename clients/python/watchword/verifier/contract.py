"""What an interceptor asks of a verifier, so that a remote one, a caching one and a fake one are interchangeable."""

from __future__ import annotations

from typing import Final, Protocol

from watchword.verifier.verdict import Verdict


class VerifierUnavailableError(Exception):
    """The token cannot be judged now. Never means that it is good: the call is refused as UNAVAILABLE.

    `cause` is stable and holds no text from elsewhere: the name of a gRPC status (`UNAVAILABLE`, `DEADLINE_EXCEEDED`,
    `UNAUTHENTICATED` when the verifier's own token is refused), `QUEUE_FULL`, `CLOSED` or `ANSWER_INVALID`.
    """

    def __init__(self, cause: str) -> None:
        super().__init__("the token cannot be verified now: " + cause)
        self.cause: Final = cause


class Verifier(Protocol):
    """Judges tokens for grpc.aio servers."""

    async def check(self, token: str, required_scopes: tuple[str, ...]) -> Verdict:
        """Judges `token` as received, after the scheme, for a call that needs all `required_scopes` (no wildcards).

        The decision is made after this was called, never earlier. Raises VerifierUnavailableError.
        """
        ...


class BlockingVerifier(Protocol):
    """Judges tokens for thread-pool servers. Called from many threads at once."""

    def check(self, token: str, required_scopes: tuple[str, ...]) -> Verdict:
        """As Verifier.check, and blocks the calling thread until there is a verdict or VerifierUnavailableError."""
        ...
