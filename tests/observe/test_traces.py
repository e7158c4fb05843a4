"""Spans continue the caller's trace, say how a call ended, and hold nothing that was said in it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from watchword.token import new_token, new_token_id
from watchword_server.observe.traces import Traces
from watchword_server.transport.handlers import Handlers
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import Limits, build_server

TOKEN = new_token(new_token_id(2**44)).text.decode()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def spans_of(
    behaviour: Any, kind: Any, *, cancelled_at: asyncio.Event | None = None, **call: Any
) -> tuple[Any, ...]:
    """Calls `behaviour` through a real server and returns the spans that came of it."""
    exporter = InMemorySpanExporter()
    traces = Traces.to_exporter(exporter)
    wrapped = traces.wrap("/test.Echo/Say", behaviour)
    handlers: Handlers = {"test.Echo": {"Say": grpc.unary_unary_rpc_method_handler(wrapped)}}
    bound = build_server(kind, handlers, ListenAddress("127.0.0.1", 0), limits=Limits())
    await bound.start()
    try:
        async with aio.insecure_channel(bound.address.target) as channel:
            method: Any = channel.unary_unary("/test.Echo/Say")
            made = method(TOKEN.encode(), **call)
            if cancelled_at is not None:
                await cancelled_at.wait()
                made.cancel()
            # How it ended is what the span is asked.
            await made.code()
    finally:
        await bound.stop(10)
        await asyncio.to_thread(traces.close)
    return exporter.get_finished_spans()


@pytest.fixture(params=["grpcio", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_span_continues_the_callers_trace(kind: str) -> None:
    async def say(request: bytes, context: Any) -> bytes:
        return request

    metadata = (("traceparent", PARENT), ("authorization", f"Bearer {TOKEN}"), ("baggage", f"token={TOKEN}"))
    (span,) = await spans_of(say, kind, metadata=metadata)
    assert span.name == "test.Echo/Say"
    assert span.kind is SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "test.Echo",
        "rpc.method": "Say",
        "rpc.grpc.status_code": 0,
    }
    assert TOKEN not in span.to_json()


async def test_without_a_parent_a_trace_begins(kind: str) -> None:
    async def say(request: bytes, context: Any) -> bytes:
        return request

    (span,) = await spans_of(say, kind)
    assert span.parent is None


async def test_an_abort_is_an_error_with_its_status_and_without_its_text(kind: str) -> None:
    async def say(request: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"no {TOKEN}")

    (span,) = await spans_of(say, kind)
    assert span.attributes["rpc.grpc.status_code"] == 5
    assert span.status.status_code is StatusCode.ERROR
    assert TOKEN not in span.to_json()


async def test_an_uncaught_error_is_unknown_and_not_shown(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def say(request: bytes, context: Any) -> None:
        raise ValueError(TOKEN)

    (span,) = await spans_of(say, kind)
    assert span.attributes["rpc.grpc.status_code"] == 2
    assert TOKEN not in span.to_json()


async def test_a_cancelled_call_is_cancelled(kind: str) -> None:
    begun = asyncio.Event()

    async def say(request: bytes, context: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    (span,) = await spans_of(say, kind, cancelled_at=begun)
    assert span.attributes["rpc.grpc.status_code"] == 1


async def test_close_ends_the_exporters_thread() -> None:
    before = set(threading.enumerate())
    traces = Traces.to_exporter(InMemorySpanExporter())
    await asyncio.to_thread(traces.close)
    assert {thread for thread in threading.enumerate() if "Otel" in thread.name} <= before
