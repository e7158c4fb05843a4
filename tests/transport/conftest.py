"""A small service on real sockets, over each transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from grpc import aio

from watchword_server.transport.handlers import Handlers, health_handlers, reflection_handlers
from watchword_server.transport.health import HealthService
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import BoundServer, Kind, Limits, build_server

SERVICE = "test.Echo"


@dataclass
class EchoService:
    """Echoes at once, or holds the call until `gate` opens; counts what it took on."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    taken: int = 0
    refusing: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_taken(self, count: int) -> None:
        """Waits until so many calls have reached a handler."""
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: self.taken >= count)

    async def say(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        if self.refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        self.taken += 1
        return request

    def refuse_calls(self) -> None:
        self.refusing = True

    async def hold(self, request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        async with self.changed:
            self.taken += 1
            self.changed.notify_all()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def chat(self, requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]) -> Any:
        async for request in requests:
            yield request

    def handlers(self) -> Handlers:
        return {
            SERVICE: {
                "Say": grpc.unary_unary_rpc_method_handler(self.say),
                "Hold": grpc.unary_unary_rpc_method_handler(self.hold),
            },
            "test.Chat": {"Talk": grpc.stream_stream_rpc_method_handler(self.chat)},
        }


@dataclass
class Running:
    """A started server, what it serves, and a way to reach it."""

    bound: BoundServer
    echo: EchoService
    health: HealthService
    channel: aio.Channel

    def call(self, method: str) -> Callable[..., Any]:
        return cast(Callable[..., Any], self.channel.unary_unary(f"/{SERVICE}/{method}"))


Start = Callable[..., Any]


@pytest.fixture(params=["grpcio", "native"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast(Kind, request.param)


@pytest.fixture
async def start(kind: Kind) -> AsyncIterator[Start]:
    """Starts servers of the transport under test; closes them all at the end."""
    async with AsyncExitStack() as stack:

        async def started(
            address: ListenAddress | None = None, *, limits: Limits | None = None, watches_max: int = 4
        ) -> Running:
            echo, health = EchoService(), HealthService([SERVICE], watches_max=watches_max)
            handlers = {**echo.handlers(), **health_handlers(health), **reflection_handlers([SERVICE], streams_max=4)}
            bound = build_server(kind, handlers, address or ListenAddress("127.0.0.1", 0), limits=limits or Limits())
            await bound.start()
            stack.push_async_callback(bound.stop, 0)
            # The test decides about sizes, never the client's own limits.
            channel = aio.insecure_channel(bound.address.target, options=[("grpc.max_send_message_length", -1)])
            await stack.enter_async_context(channel)
            return Running(bound, echo, health, channel)

        yield started


@pytest.fixture
async def running(start: Start) -> Running:
    return cast(Running, await start())
