"""One call under judgement, in grpc.aio: deciding, and refusing so that the refusal arrives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from watchword.identity import Identity
from watchword.interceptor.denial import REQUEST_UNREADABLE, UNAVAILABLE, Denial, denial_of, judge
from watchword.interceptor.origin import Origin, Origins
from watchword.verifier.contract import (
    ImmediateVerifier,
    OpenStream,
    StreamGates,
    Verifier,
    VerifierUnavailableError,
)
from watchword.verifier.verdict import Active, Bound, Verdict

_LOGGER: Final = logging.getLogger("watchword.interceptor")
# How long a refusal waits for the first request message of a stream.
FIRST_MESSAGE_SECONDS_MAX: Final = 0.5

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Offers:
    """A verifier, what it offers beyond `check`, and where calls come from: looked up once, not for every call."""

    __slots__ = ("check", "check_now", "gates", "origins")

    def __init__(self, verifier: Verifier, trusted_proxies: Iterable[str] = ()) -> None:
        self.origins: Final = Origins(trusted_proxies, verifier)
        self.check: Final = verifier.check
        self.check_now: Final = verifier.check_now if isinstance(verifier, ImmediateVerifier) else _nothing_known
        self.gates: Final = verifier if isinstance(verifier, StreamGates) else None


def _nothing_known(token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
    """`check_now` of a verifier that has to ask each time."""
    return None


class Call:
    """A call's token and what it has to cover. Without a `repr` of its own that could show the token."""

    __slots__ = ("_denial", "_offers", "_origin", "_refused", "_scopes", "_token")

    def __init__(self, offers: Offers, token: str, scopes: tuple[str, ...]) -> None:
        self._offers = offers
        self._token = token
        self._scopes = scopes
        self._denial: Denial | None = None
        self._refused = False
        self._origin: Origin | None = None

    def admit_now(self, context: Context) -> Identity | None:
        """Whom the verifier admits without asking anybody; None where it does not know, or does not admit."""
        if self._denial is not None:
            return None
        return self.admitted(self._offers.check_now(self._token, self._scopes), context)

    def admitted(self, verdict: Verdict | None, context: Context) -> Identity | None:
        """As admit_now, with what the verifier knows."""
        if isinstance(verdict, Active):
            return verdict.identity
        if isinstance(verdict, Bound):
            outcome = judge(self._resolved(verdict, context))
            if not isinstance(outcome, Denial):
                return outcome
            self._denial = outcome
        return None

    async def decide(self, context: Context) -> Identity | Denial:
        """Judges the token now. Every doubt is a denial, and a denial is final: the gate of a stream stays shut."""
        if self._denial is not None:
            return self._denial
        try:
            peer = self._offers.origins.peer(context)
            verdict = await self._offers.check(self._token, self._scopes, peer=peer)
            outcome = judge(self._resolved(verdict, context) if isinstance(verdict, Bound) else verdict)
        except VerifierUnavailableError:
            outcome = UNAVAILABLE
        except Exception as error:
            # The type alone: a verifier's text is not known to be free of secrets.
            _LOGGER.error("a verifier failed with %s; the call is refused", type(error).__name__)
            outcome = UNAVAILABLE
        # Another message of this call may have been refused while this one was looked up.
        if self._denial is not None:
            return self._denial
        if isinstance(outcome, Denial):
            self._denial = outcome
        return outcome

    async def admit(self, context: Context) -> Identity:
        """Judges the token for the next message; ends the call and raises AbortError if it is refused."""
        return self.admit_now(context) or await self.admit_asking(context)

    async def admit_asking(self, context: Context) -> Identity:
        """As admit, after `admit_now` did not."""
        outcome = await self.decide(context)
        if isinstance(outcome, Denial):
            await self.end(context, outcome)
        return outcome

    async def admit_unread(self, context: Context) -> Identity:
        """As admit, for a call of which nothing was read yet."""
        outcome = await self.decide(context)
        if isinstance(outcome, Denial):
            self._claim_refusal(outcome)
            await refuse_unread(context, outcome)
        return outcome

    async def end(self, context: Context, denial: Denial) -> NoReturn:
        """Ends the call with `denial`, if nobody did before. Raises AbortError."""
        self._claim_refusal(denial)
        await refuse(context, denial)

    @property
    def is_refused(self) -> bool:
        """Whether somebody is ending the call."""
        return self._refused

    def open_stream(self, shut: Callable[[Denial], None]) -> OpenStream | None:
        """Has `shut` called when the token ends, by a verifier that learns of it. From then on nothing more passes."""
        gates = self._offers.gates
        if gates is None:
            return None

        def learn(verdict: Verdict) -> None:
            # Refused for a message already: that is ending the call.
            if self._denial is None:
                self._denial = denial_of(verdict)
                shut(self._denial)

        return gates.open_stream(self._token, self._scopes, learn)

    def _resolved(self, bound: Bound, context: Context) -> Verdict:
        origins = self._offers.origins
        if self._origin is None:
            self._origin = origins.of(context)
        return origins.resolve(bound, self._scopes, self._origin)

    def _claim_refusal(self, denial: Denial) -> None:
        if self._refused:
            # The status is sent once.
            raise grpc.aio.AbortError("the call has ended: " + denial.message)
        self._refused = True


async def refuse(context: Context, denial: Denial) -> NoReturn:
    """Ends the call with `denial`. Raises AbortError."""
    await context.abort(denial.code, denial.message, denial.trailers)


async def refuse_unread(context: Context, denial: Denial) -> NoReturn:
    """As refuse, for a call of which nothing was read yet.

    A grpc.aio client whose bidirectional call is answered before it began to write reports INTERNAL instead of the
    status that it got. So the first message is waited for, shortly, and thrown away.
    """
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS_MAX):
            await context.read()
    except TimeoutError:
        pass
    await refuse(context, denial)


async def read_request(context: Context, deserialize: Callable[[bytes], Any] | None, raw: Any) -> Any:
    """The request message out of its bytes. Judging comes first, so the guards parse, not gRPC, whose way of failing
    would also send the parser's own words to the caller. Ends the call and raises AbortError if it cannot be read.
    """
    if deserialize is None:
        return raw
    try:
        return deserialize(raw)
    except Exception:
        await refuse(context, REQUEST_UNREADABLE)
