"""Health says whether to send calls here, tells watchers of every change, and cannot be used to exhaust the server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.transport.conftest import SERVICE, Running, Start
from watchword_server.transport.health import HealthService

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def stub(running: Running) -> Any:
    return health_pb2_grpc.HealthStub(running.channel)


def asked(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_it_is_not_serving_until_told(running: Running, service: str) -> None:
    assert (await stub(running).Check(asked(service))).status == NOT_SERVING
    running.health.set_serving(True)
    assert (await stub(running).Check(asked(service))).status == SERVING
    running.health.set_serving(False)
    assert (await stub(running).Check(asked(service))).status == NOT_SERVING


async def test_an_unknown_service_is_not_found(running: Running) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await stub(running).Check(asked("nobody.Service"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_hears_of_each_change_and_ends_with_the_drain(running: Running) -> None:
    watch = stub(running).Watch(asked())
    assert (await watch.read()).status == NOT_SERVING
    running.health.set_serving(True)
    assert (await watch.read()).status == SERVING
    running.health.drain()
    assert (await watch.read()).status == NOT_SERVING
    assert await watch.read() is aio.EOF
    assert await watch.code() is grpc.StatusCode.OK


async def test_a_watch_on_an_unknown_service_stays_open(running: Running) -> None:
    watch = stub(running).Watch(asked("nobody.Service"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


async def test_watches_are_bounded_and_one_that_ends_makes_room(start: Start) -> None:
    running: Running = await start(watches_max=2)
    watches = [stub(running).Watch(asked()) for _ in range(2)]
    for watch in watches:
        await watch.read()
    with pytest.raises(aio.AioRpcError) as caught:
        await stub(running).Watch(asked()).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # A check is no watch: it is never refused for them.
    await stub(running).Check(asked())
    watches[0].cancel()
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await stub(running).Watch(asked()).read()).status == NOT_SERVING
                break
            except aio.AioRpcError:
                await asyncio.sleep(0)
    watches[1].cancel()


async def test_after_the_drain_no_probe_makes_it_serve_again() -> None:
    health = HealthService([SERVICE])
    health.drain()
    health.set_serving(True)
    assert not health.serving


@pytest.mark.parametrize("failure", [OSError("refused"), TimeoutError(), False])
async def test_a_probe_that_fails_means_not_serving_and_it_recovers_by_itself(
    running: Running, failure: Exception | bool
) -> None:
    answers: asyncio.Queue[bool | Exception] = asyncio.Queue()

    async def probe() -> bool:
        answer = await answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = stub(running).Watch(asked())
    assert (await watch.read()).status == NOT_SERVING
    keeping = asyncio.ensure_future(running.health.keep_current(probe, interval_seconds=0, timeout_seconds=30))
    for answer, status in ((True, SERVING), (failure, NOT_SERVING), (True, SERVING)):
        answers.put_nowait(answer)
        assert (await watch.read()).status == status
    keeping.cancel()
    watch.cancel()


async def test_a_probe_that_hangs_means_not_serving(running: Running) -> None:
    running.health.set_serving(True)
    watch = stub(running).Watch(asked())
    assert (await watch.read()).status == SERVING
    keeping = asyncio.ensure_future(
        running.health.keep_current(asyncio.Event().wait, interval_seconds=0, timeout_seconds=0.01)
    )
    assert (await watch.read()).status == NOT_SERVING
    keeping.cancel()
    watch.cancel()
