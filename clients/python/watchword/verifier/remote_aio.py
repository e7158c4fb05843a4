"""Asks the authority, for grpc.aio servers: concurrent checks share a BatchValidate."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

import grpc

from watchword.network import address_of_peer
from watchword.token import PREFIX_DEFAULT, MalformedTokenError, check_prefix, parse_token
from watchword.v1.token_service_pb2 import BatchValidateResponse
from watchword.v1.token_service_pb2_grpc import TokenServiceStub
from watchword.verifier.contract import PeerName, VerifierUnavailableError
from watchword.verifier.outage import Outage
from watchword.verifier.verdict import Answer, Inactive, Verdict
from watchword.verifier.wire import BATCH_SIZE_LIMIT, Question, batch_answers, batch_request, is_too_large, unavailable


@dataclass(slots=True)
class _Ask:
    question: Question
    answer: asyncio.Future[Answer]


class RemoteVerifier:
    """A Verifier that calls the authority for every check.

    A check joins the next batch, never one that was already sent: an answer read before the check began could predate a
    revocation. A lone check goes out at once; while `calls_in_flight_max` are under way the others gather.

    `channel` leads to the authority and carries this service's own token, which needs the scope `watchword.validate`
    and the audience `watchword` (see connect). It is not closed here. Belongs to the event loop it is first used on.

    A check takes at most `timeout_seconds`, waiting included. More than `queue_size_max` waiting checks are refused at
    once, as is everything after `close`.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token_prefix: str = PREFIX_DEFAULT,
        timeout_seconds: float = 2.0,
        batch_size_max: int = 256,
        queue_size_max: int = 10_000,
        calls_in_flight_max: int = 2,
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError("timeout_seconds must be positive")
        if not 1 <= batch_size_max <= BATCH_SIZE_LIMIT:
            raise ValueError("batch_size_max must be 1 to 1000")
        if queue_size_max < 1 or calls_in_flight_max < 1:
            raise ValueError("queue_size_max and calls_in_flight_max must be at least 1")
        self._stub: Final = TokenServiceStub(channel)
        self._prefix: Final = check_prefix(token_prefix)
        self._timeout_seconds: Final = timeout_seconds
        self._batch_size_max: Final = batch_size_max
        self._queue_size_max: Final = queue_size_max
        self._calls_in_flight_max: Final = calls_in_flight_max
        self._waiting: deque[_Ask] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._gathering = False
        self._closed = False
        self._outage: Final = Outage()

    async def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """See Verifier. What is no token by its checksum is answered here, without I/O."""
        try:
            parse_token(token, self._prefix)
        except MalformedTokenError:
            return Inactive(malformed=True)
        address = "" if peer is None else address_of_peer(peer())
        return (await self.ask(Question(token, required_scopes, address))).verdict

    async def ask(self, question: Question) -> Answer:
        """As check, about a well-formed token, with what a cache needs. Raises VerifierUnavailableError."""
        if self._closed:
            raise VerifierUnavailableError("CLOSED")
        if len(self._waiting) >= self._queue_size_max:
            raise VerifierUnavailableError("QUEUE_FULL")
        loop = asyncio.get_running_loop()
        ask = _Ask(question, loop.create_future())
        self._waiting.append(ask)
        self._gather(loop)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await ask.answer
        except TimeoutError:
            raise VerifierUnavailableError("DEADLINE_EXCEEDED") from None

    async def close(self) -> None:
        """Refuses what waits and what comes, and ends the calls under way."""
        self._closed = True
        self._refuse(self._waiting, VerifierUnavailableError("CLOSED"))
        self._waiting.clear()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        # One turn of the loop: checks that begin in the same turn share the batch, a lone one loses nothing.
        if not self._gathering and len(self._calls) < self._calls_in_flight_max:
            self._gathering = True
            loop.call_soon(self._send, loop)

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        self._gathering = False
        batch: list[_Ask] = []
        while self._waiting and len(batch) < self._batch_size_max:
            ask = self._waiting.popleft()
            # Given up meanwhile: its caller hung up or ran out of time.
            if not ask.answer.done():
                batch.append(ask)
        if batch:
            call = loop.create_task(self._call(batch))
            self._calls.add(call)
            call.add_done_callback(self._sent)
        if self._waiting:
            self._gather(loop)

    def _sent(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._waiting:
            self._gather(call.get_loop())

    async def _call(self, batch: list[_Ask]) -> None:
        try:
            response: BatchValidateResponse = await self._stub.BatchValidate(
                batch_request(ask.question for ask in batch), timeout=self._timeout_seconds
            )
            answers = batch_answers(response, len(batch))
        except grpc.RpcError as error:
            if len(batch) == 1 or not is_too_large(error):
                self._refuse(batch, unavailable(error))
                return
            # What a token says of itself may be long: nobody's check shall fail for its neighbours' in the batch.
            half = len(batch) // 2
            await asyncio.gather(self._call(batch[:half]), self._call(batch[half:]))
        except VerifierUnavailableError as error:
            self._refuse(batch, error)
        except asyncio.CancelledError:
            self._refuse(batch, VerifierUnavailableError("CLOSED"))
            raise
        except Exception:  # e.g. a token source that fails: whoever waits must hear of it, whatever it was
            self._refuse(batch, VerifierUnavailableError("UNKNOWN"))
        else:
            self._outage.ended()
            for ask, answer in zip(batch, answers, strict=True):
                self._settle(ask, answer)

    def _settle(self, ask: _Ask, answer: Answer | None) -> None:
        if answer is None:
            self._outage.unjudged()
        if ask.answer.done():
            return
        if answer is None:
            ask.answer.set_exception(VerifierUnavailableError("UNJUDGED"))
        else:
            ask.answer.set_result(answer)

    def _refuse(self, asks: deque[_Ask] | list[_Ask], error: VerifierUnavailableError) -> None:
        self._outage.seen(error.cause)
        for ask in asks:
            if not ask.answer.done():
                # One each: a shared exception would collect everybody's traceback.
                ask.answer.set_exception(VerifierUnavailableError(error.cause))
