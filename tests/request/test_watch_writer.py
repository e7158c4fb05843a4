"""A verifier that does not read is cut, and holds nothing afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.clocks import ManualClock
from watchword.lease import instant
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.observe.metrics import MethodMeter
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.stream import WatcherStream
from watchword_server.request.standing import Standings
from watchword_server.request.verifier_service import VerifierService, WatchLimits
from watchword_server.store.fleet_contract import FeedPage

EPOCH = uuid4()


class Standing:
    """A caller who is good for ever."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def judge(self) -> Any:
        return SimpleNamespace(subject="orders")

    async def keep(self) -> None:
        await asyncio.Event().wait()


class AllGood:
    """Standings of such callers."""

    @contextmanager
    def of(self, metadata: object) -> Iterator[tuple[UUID, Standing]]:
        yield UUID(int=1), Standing()


class DeafContext:
    """Says hello, and then takes nothing."""

    def __init__(self) -> None:
        hello = pb.Hello(verifier_key=b"k" * 16, lease=Duration(seconds=2))
        self._incoming = [pb.WatchRequest(hello=hello).SerializeToString()]
        self.code: grpc.StatusCode | None = None

    def invocation_metadata(self) -> object:
        return ()

    def peer(self) -> str:
        return "test"

    async def send_initial_metadata(self, metadata: object) -> None:
        pass

    async def read(self) -> bytes:
        if not self._incoming:
            await asyncio.Event().wait()
        return self._incoming.pop()

    async def write(self, message: object) -> None:
        await asyncio.Event().wait()

    async def abort(self, code: grpc.StatusCode, message: str, trailer: object) -> None:
        self.code = code
        raise grpc.aio.AbortError


async def test_a_reader_that_never_reads_is_cut() -> None:
    clock = ManualClock()
    ledger = Ledger(clock)
    ledger.joined(uuid4(), EPOCH, instant(clock))
    page = FeedPage(EPOCH, 7, uuid4(), (), continues=False, pruned=False, settled=True, longest_lease_seconds=60)
    assert ledger.start(page)
    refusals: list[str] = []
    service = VerifierService(
        standings=cast(Standings, AllGood()),
        open_stream=lambda caller, ready: WatcherStream(ledger, clock, caller=caller, ready=ready),
        advanced=lambda: None,
        poll=lambda: asyncio.sleep(0),
        limits=WatchLimits(watches_max=1, watches_per_caller_max=1, ack_timeout_seconds=0.01),
        meter=MethodMeter(),
        count_refusal=refusals.append,
    )
    for _ in range(2):  # The second one finds the place free.
        context = DeafContext()
        with pytest.raises(grpc.aio.AbortError):
            await service.watch(None, context)
        assert context.code is grpc.StatusCode.ABORTED
        assert not ledger.streams
    assert refusals == ["WATCH_LAGGING"] * 2
