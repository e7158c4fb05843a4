"""Asks the authority, for thread-pool servers: concurrent checks share a BatchValidate. No thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
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
    answer: Future[Answer]


class RemoteVerifier:
    """A BlockingVerifier that calls the authority for every check: watchword.aio's, for threads.

    A check joins the next batch, never one that was already sent. A lone check goes out at once; while
    `calls_in_flight_max` are under way the others gather, and the call that ends sends them off.

    `channel` leads to the authority and carries this service's own token, which needs the scope `watchword.validate`
    and the audience `watchword` (see connect). It is not closed here.

    A check takes at most `timeout_seconds`, waiting included. More than `queue_size_max` waiting checks are refused at
    once, as is everything after `close`.
    """

    def __init__(
        self,
        channel: grpc.Channel,
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
        self._stub = TokenServiceStub(channel)
        self._prefix: Final = check_prefix(token_prefix)
        self._timeout_seconds: Final = timeout_seconds
        self._batch_size_max: Final = batch_size_max
        self._queue_size_max: Final = queue_size_max
        self._calls_in_flight_max: Final = calls_in_flight_max
        self._lock: Final = threading.Lock()
        self._waiting: deque[_Ask] = deque()
        self._calls_in_flight = 0
        self._closed = False
        self._outage: Final = Outage()

    def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """See BlockingVerifier. What is no token by its checksum is answered here, without I/O."""
        try:
            parse_token(token, self._prefix)
        except MalformedTokenError:
            return Inactive(malformed=True)
        address = "" if peer is None else address_of_peer(peer())
        return self.ask(Question(token, required_scopes, address)).verdict

    def ask(self, question: Question) -> Answer:
        """As check, about a well-formed token, with what a cache needs. Raises VerifierUnavailableError."""
        ask = _Ask(question, Future())
        with self._lock:
            if self._closed:
                raise VerifierUnavailableError("CLOSED")
            if len(self._waiting) >= self._queue_size_max:
                raise VerifierUnavailableError("QUEUE_FULL")
            self._waiting.append(ask)
            batch = self._next_batch()
        if batch:
            self._send(batch)
        try:
            return ask.answer.result(self._timeout_seconds)
        except TimeoutError:
            ask.answer.cancel()
            raise VerifierUnavailableError("DEADLINE_EXCEEDED") from None

    def close(self) -> None:
        """Refuses what waits and what comes. Calls under way end by themselves, within the timeout."""
        with self._lock:
            self._closed = True
            waiting = [ask for ask in self._waiting if ask.answer.set_running_or_notify_cancel()]
            self._waiting.clear()
        self._refuse(waiting, VerifierUnavailableError("CLOSED"))

    def _next_batch(self) -> list[_Ask]:
        """Takes what waits, if a call may be made; the lock is held."""
        batch: list[_Ask] = []
        if self._calls_in_flight >= self._calls_in_flight_max:
            return batch
        while self._waiting and len(batch) < self._batch_size_max:
            ask = self._waiting.popleft()
            # False: given up meanwhile. True: from here on it cannot be cancelled, so that setting it cannot fail.
            if ask.answer.set_running_or_notify_cancel():
                batch.append(ask)
        if batch:
            self._calls_in_flight += 1
        return batch

    def _send(self, batch: list[_Ask]) -> None:
        while batch:
            try:
                call = self._stub.BatchValidate.future(
                    batch_request(ask.question for ask in batch), timeout=self._timeout_seconds
                )
            except Exception:  # a closed channel, a token source that fails: whoever waits must hear of it
                self._refuse(batch, VerifierUnavailableError("UNKNOWN"))
                batch = self._after_a_call()
            else:
                call.add_done_callback(partial(self._received, batch))
                return

    def _received(self, batch: list[_Ask], done: grpc.Future[BatchValidateResponse]) -> None:
        try:
            answers = batch_answers(done.result(), len(batch))
        except grpc.RpcError as error:
            if len(batch) > 1 and is_too_large(error):
                # What a token says of itself may be long: nobody's check shall fail for its neighbours' in the batch.
                with self._lock:
                    self._calls_in_flight += 1
                half = len(batch) // 2
                self._send(batch[:half])
                self._send(batch[half:])
                return
            self._refuse(batch, unavailable(error))
        except grpc.FutureCancelledError:
            self._refuse(batch, VerifierUnavailableError("CANCELLED"))
        except VerifierUnavailableError as error:
            self._refuse(batch, error)
        except Exception:
            self._refuse(batch, VerifierUnavailableError("UNKNOWN"))
        else:
            self._outage.ended()
            for ask, answer in zip(batch, answers, strict=True):
                if answer is None:
                    self._outage.unjudged()
                    ask.answer.set_exception(VerifierUnavailableError("UNJUDGED"))
                else:
                    ask.answer.set_result(answer)
        self._send(self._after_a_call())

    def _after_a_call(self) -> list[_Ask]:
        with self._lock:
            self._calls_in_flight -= 1
            return self._next_batch()

    def _refuse(self, asks: list[_Ask], error: VerifierUnavailableError) -> None:
        self._outage.seen(error.cause)
        for ask in asks:
            # One each: a shared exception would collect everybody's traceback.
            ask.answer.set_exception(VerifierUnavailableError(error.cause))
