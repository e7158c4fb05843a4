"""One call under judgement, in grpc.aio: deciding, and refusing so that the refusal arrives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from watchword.identity import Identity
from watchword.interceptor.denial import REQUEST_UNREADABLE, UNAVAILABLE, Denial, judge
from watchword.verifier.contract import Verifier, VerifierUnavailableError

_LOGGER: Final = logging.getLogger("watchword.interceptor")
# How long a refusal waits for the first request message of a stream.
FIRST_MESSAGE_SECONDS_MAX: Final = 0.05

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Call:
    """A call's token and what it has to cover. Without a `repr` of its own that could show the token."""

    __slots__ = ("_denial", "_scopes", "_token", "_verifier")

    def __init__(self, verifier: Verifier, token: str, scopes: tuple[str, ...]) -> None:
        self._verifier = verifier
        self._token = token
        self._scopes = scopes
        self._denial: Denial | None = None

    async def decide(self) -> Identity | Denial:
        """Judges the token now. Every doubt is a denial, and a denial is final: the gate of a stream stays shut."""
        if self._denial is not None:
            return self._denial
        try:
            outcome = judge(await self._verifier.check(self._token, self._scopes))
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
        """Judges the token for the next message of a stream; ends the call and raises AbortError if it is refused."""
        ended = self._denial is not None
        outcome = await self.decide()
        if isinstance(outcome, Denial):
            if ended:
                # The status was sent with the first refusal.
                raise grpc.aio.AbortError("the call has ended: " + outcome.message)
            await refuse(context, outcome)
        return outcome


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
