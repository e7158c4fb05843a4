"""Draining: health first, streams next, then the calls under way, each of which gets its answer."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.transport.conftest import Running
from watchword_server.transport.drain import StopRequest, drain

GRACE_SECONDS = 60


async def test_under_load_no_call_that_was_accepted_fails(running: Running) -> None:
    """Callers send one call after another while the server drains. Every call that reached a handler is answered, and
    every one that failed was refused as UNAVAILABLE without having reached one."""
    answered = 0
    refusals: list[grpc.StatusCode] = []
    stop = StopRequest()

    async def caller() -> None:
        nonlocal answered
        while True:
            try:
                await running.call("Say")(b"x")
            except aio.AioRpcError as error:
                refusals.append(error.code())
                return
            answered += 1
            if answered == 500:
                stop()

    held = [asyncio.ensure_future(running.call("Hold")(b"held")) for _ in range(20)]
    await running.echo.until_taken(20)
    callers = [asyncio.ensure_future(caller()) for _ in range(32)]
    await stop.requested.wait()
    running.health.set_serving(True)
    draining = asyncio.ensure_future(
        drain(
            running.bound,
            running.health,
            refuse_calls=running.echo.refuse_calls,
            grace_seconds=GRACE_SECONDS,
            hurried=stop.hurried,
        )
    )
    # New calls are refused while those under way still wait: the drain has begun, and the held ones outlast it.
    await asyncio.gather(*callers)
    assert not any(call.done() for call in held)
    running.echo.gate.set()
    assert await asyncio.gather(*held) == [b"held"] * 20
    assert await draining
    assert refusals == [grpc.StatusCode.UNAVAILABLE] * 32
    assert answered + len(held) == running.echo.taken


async def test_health_is_not_serving_and_streams_are_ended_before_calls_are_refused(running: Running) -> None:
    running.health.set_serving(True)
    watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    order = []

    async def end_streams() -> None:
        order.append(("serving", running.health.serving))
        # The server takes calls still: a stream that is being ended may need one to say goodbye.
        order.append(("answer", await running.call("Say")(b"x")))

    async def broken() -> None:
        raise OSError("gone")

    assert await drain(
        running.bound,
        running.health,
        end_streams=[broken, end_streams],
        grace_seconds=GRACE_SECONDS,
        hurried=asyncio.Event(),
    )
    assert order == [("serving", False), ("answer", b"x")]
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await watch.read() is aio.EOF


async def test_the_grace_bounds_the_wait_for_calls(running: Running) -> None:
    call = running.call("Hold")(b"")
    await running.echo.until_taken(1)
    await asyncio.wait_for(
        drain(running.bound, running.health, grace_seconds=0.05, hurried=asyncio.Event()), GRACE_SECONDS
    )
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert running.echo.cancelled.is_set()


async def test_a_second_request_cuts_it_short(running: Running) -> None:
    call = running.call("Hold")(b"")
    await running.echo.until_taken(1)
    stop = StopRequest()
    stop()
    draining = asyncio.ensure_future(drain(running.bound, running.health, grace_seconds=3600, hurried=stop.hurried))
    assert not stop.hurried.is_set()
    stop()
    assert not await asyncio.wait_for(draining, GRACE_SECONDS)
    with pytest.raises(aio.AioRpcError):
        await call
    assert running.echo.cancelled.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_requests_the_stop_and_a_second_one_hurries_it(number: signal.Signals) -> None:
    stop = StopRequest()
    with stop.on_signals():
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.requested.wait(), 10)
        assert not stop.hurried.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.hurried.wait(), 10)
