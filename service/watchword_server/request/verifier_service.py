"""VerifierService.Watch: between the wire and one stream's state machine in `replica/`.

Each stream has a reader, a writer and a keeper of its caller's standing. What is written is taken from the state
machine only when the wire has room, so a slow reader costs no memory; one that reads nothing for too long is cut.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import grpc
from google.protobuf.message import DecodeError

from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica import refusal
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.stream import Caller, WatcherStream
from watchword_server.request.pipeline import Meter, boundary
from watchword_server.request.standing import Standing, Standings
from watchword_server.request.status import Answer
from watchword_server.rules.fields import Faults

SERVICE = pb.DESCRIPTOR.services_by_name["VerifierService"]
PATH: Final = f"/{SERVICE.full_name}/Watch"
CHECK_SECONDS: Final = 1.0
"""How often a quiet stream is looked at: whether its verifier lags."""
MESSAGE_BYTES_MAX: Final = 4096
"""A hello with the longest names. Nothing that a verifier says is longer, but for its reports."""
REPORT_BYTES_MAX: Final = 1024 * 1024
"""A thousand uses with a thousand bytes each."""
_REPORT: Final = bytes([pb.WatchRequest.USAGE_FIELD_NUMBER << 3 | 2])
ABORT_SECONDS_MAX: Final = 5.0
"""A status waits behind what was written, and a reader that does not read takes neither."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """What all watches, and those of one caller, may take; and how long one may go without reading or acknowledging."""

    watches_max: int
    watches_per_caller_max: int
    ack_timeout_seconds: float


class VerifierService:
    """The one RPC of watchword.v1.VerifierService.

    `open_stream` makes the state machine of a stream: it is given who calls and what to call when there may be
    something to write. `advanced` is called when a verifier may have applied something, `poll` reads the feed once.
    """

    def __init__(
        self,
        *,
        standings: Standings,
        open_stream: Callable[[Caller, Callable[[], None]], WatcherStream],
        advanced: Callable[[], None],
        poll: Callable[[], Awaitable[None]],
        limits: WatchLimits,
        meter: Meter,
        count_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._standings = standings
        self._open_stream = open_stream
        self._advanced = advanced
        self._poll = poll
        self._limits = limits
        self._meter = meter
        self._count_refusal = count_refusal
        self._draining = False
        self._ended = asyncio.Event()
        self._count = 0
        self._count_by_caller: Counter[UUID] = Counter()

    def refuse_watches(self) -> None:
        """New watches are refused from now on; those there are go on until `end_watches`."""
        self._draining = True

    def end_watches(self) -> None:
        """Ends all watches."""
        self._draining = True
        self._ended.set()

    async def watch(self, _: object, context: Any) -> None:
        """The behaviour to register, for a method that hands bytes on."""
        began = time.perf_counter()
        answer: Answer | None = None
        try:
            await self._admitted(context)
        except asyncio.CancelledError:
            self._meter.finished(grpc.StatusCode.CANCELLED.value[0], time.perf_counter() - began)
            raise
        except Exception as error:
            answer = boundary(error, PATH)
            if isinstance(error, WatchRefusedError):
                self._count_refusal(error.reason)
        self._meter.finished(0 if answer is None else answer[0].value[0], time.perf_counter() - began)
        if answer is not None:
            # By now the stream holds nothing of ours. (test_a_reader_that_never_reads_is_cut)
            try:
                async with asyncio.timeout(ABORT_SECONDS_MAX):
                    await context.abort(*answer)
            except TimeoutError:
                _log.debug("a watch was cut whose client reads nothing")

    async def _admitted(self, context: Any) -> None:
        with self._counted(), self._standings.of(context) as (token_id, standing):
            record = await standing.judge()
            with self._counted_for(token_id):
                await self._run(context, standing, Caller(context.peer(), record.subject))

    async def _run(self, context: Any, standing: Standing, caller: Caller) -> None:
        # Of a first write that is cut short gRPC forgets that it sent this, sends it again with the status, and fails:
        # the stream would end for nobody. (test_a_stream_that_ends_with_its_first_answer_on_the_way_ends)
        await context.send_initial_metadata(())
        ready = asyncio.Event()
        stream = self._open_stream(caller, ready.set)
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self._read(context, standing, stream),
                self._write(context, standing, stream, ready),
                standing.keep(),
                self._end(),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            # Whatever it may still hold is no longer waited for here: its lease is on record.
            stream.close()
            self._advanced()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, context: Any, standing: Standing, stream: WatcherStream) -> None:
        data = await context.read()
        while data is not grpc.aio.EOF:
            message = _parse(data)
            while not standing.gate.is_set():
                await standing.gate.wait()
            # No await from here on: what it records, and up to where it grants, are of one moment (rule 3).
            stream.receive(message)
            self._advanced()
            if stream.waits_for_number is not None:
                await self._poll()
                stream.polled()
            data = await context.read()

    async def _write(self, context: Any, standing: Standing, stream: WatcherStream, ready: asyncio.Event) -> None:
        while True:
            stream.check()
            ready.clear()
            message = stream.take() if standing.gate.is_set() else None
            if message is None:
                # A verifier that owes nothing costs nothing: hundreds of quiet watches would keep a core busy.
                quiet = standing.gate.is_set() and not stream.owes
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if quiet else CHECK_SECONDS):
                        await (ready if standing.gate.is_set() else standing.gate).wait()
                continue
            try:
                async with asyncio.timeout(self._limits.ack_timeout_seconds):
                    await context.write(message)
            except TimeoutError:
                raise WatchRefusedError("ABORTED", "WATCH_LAGGING", "the verifier does not read") from None

    async def _end(self) -> None:
        await self._ended.wait()
        raise refusal.draining()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._draining:
            raise refusal.draining()
        if self._count >= self._limits.watches_max:
            raise _limited("the server is at its limit of watches")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    @contextmanager
    def _counted_for(self, token_id: UUID) -> Iterator[None]:
        if self._count_by_caller[token_id] >= self._limits.watches_per_caller_max:
            raise _limited("the calling token is at its limit of watches")
        self._count_by_caller[token_id] += 1
        try:
            yield
        finally:
            self._count_by_caller[token_id] -= 1
            if not self._count_by_caller[token_id]:
                del self._count_by_caller[token_id]


def _parse(data: bytes) -> pb.WatchRequest:
    # A report tells by its first byte what it is; what only begins as one is cut at the next look.
    if len(data) > (REPORT_BYTES_MAX if data.startswith(_REPORT) else MESSAGE_BYTES_MAX):
        raise refusal.protocol("the message is too long")
    try:
        message = pb.WatchRequest.FromString(data)
    except DecodeError:
        raise refusal.protocol("not a watchword.v1.WatchRequest") from None
    if message.HasField("hello"):
        faults = Faults()
        for name in ("name", "instance", "library"):
            # They go to operators' terminals. (test_a_hello_that_no_verifier_says_ends_the_stream)
            faults.text(name, getattr(message.hello, name))
        if faults.found:
            raise refusal.protocol(": ".join(faults.found[0]))
    return message


def _limited(message: str) -> WatchRefusedError:
    return WatchRefusedError("RESOURCE_EXHAUSTED", "WATCHES_LIMITED", message)
