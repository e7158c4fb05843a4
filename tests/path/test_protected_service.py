"""A service behind the client library, at a running Watchword: bound tokens, their use, and rotation under a stream."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.client.bound_calls import ADMITTED, REFUSED, connected, outcome, serving
from tests.client.echo import SECONDS_MAX, bearer, path
from tests.client.subjects import AioSubject, Subject, SyncSubject, until
from tests.conftest import Watchword, running_watchword
from tests.databases import Databases
from tests.path.party import Party, administrator, unique
from watchword import aio, sync
from watchword.v1 import token_service_pb2 as pb

CALLER = "203.0.113.7"


@pytest.fixture(scope="module", params=["grpcio", "native"])
def running(request: pytest.FixtureRequest, postgres: Databases) -> Iterator[Watchword]:
    """A server that asks for reports often."""
    often = {"WATCHWORD_USAGE_INTERVAL_SECONDS": "0.2"}
    with postgres.fresh() as dsn, running_watchword(dsn, transport=request.param, **often) as made:
        administrator(made).register("echo.use")
        yield made


@pytest.fixture
def admin(running: Watchword) -> Party:
    return administrator(running)


@pytest.fixture(params=["aio", "sync"])
def stack(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def protected(
    running: Watchword, admin: Party, stack: str, name: str, **settings: Any
) -> AsyncIterator[tuple[Subject, int]]:
    """The service `name`, whose verifier caches; and its port."""
    own = admin.issue(name, ["watchword"], ["watchword.validate"]).secret
    subject: Subject
    async with aio.connect(running.address, token=own) as channel:
        with sync.connect(running.address, token=own) as blocking_channel:
            subject = (
                AioSubject(aio.CachingVerifier(channel, name=name, timeout_seconds=SECONDS_MAX))
                if stack == "aio"
                else SyncSubject(sync.CachingVerifier(blocking_channel, name=name, timeout_seconds=SECONDS_MAX))
            )
            try:
                await subject.start()
                await until(lambda: subject.status().caching)
                async with serving(stack, subject.verifier, **settings) as port:
                    yield subject, port
            finally:
                await subject.close()


async def test_bound_tokens_are_good_from_where_they_belong_and_known_to_be_used_there(
    running: Watchword, admin: Party, stack: str
) -> None:
    name = unique("orders")
    here, elsewhere = (
        admin.make(subject="alice", audiences=[name], scopes=["echo.use"], allowed_networks=[network])
        for network in ("203.0.113.0/24", "198.51.100.0/24")
    )
    async with protected(running, admin, stack, name, trusted_proxies=("127.0.0.0/8",)) as (subject, port):
        for _ in range(4):
            assert await outcome(port, "Unary", here.secret, CALLER) == ADMITTED
            assert await outcome(port, "Unary", elsewhere.secret, CALLER) == REFUSED
        assert subject.status().hits >= 6

        def uses() -> list[tuple[str, int, str, tuple[str, ...]]]:
            services = admin.record(here.token.token_id).usage.services
            return [(one.service, one.use_count, one.address, tuple(one.scopes)) for one in services]

        # Also of the first, about which the service was asked, and of no refused one: each use is known once.
        await until(lambda: uses() == [(name, 4, CALLER, ("echo.use",))])


async def test_a_stream_outlives_the_rotation_of_its_token_and_not_its_grace(
    running: Watchword, admin: Party, stack: str
) -> None:
    name = unique("orders")
    token = admin.make(subject="alice", audiences=[name], scopes=["echo.use"])
    rotate = pb.RotateRequest(token_id=token.token.token_id, grace=Duration(seconds=3_600))
    async with protected(running, admin, stack, name) as (subject, port):
        with connected(port) as channel:
            requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            call: Any = channel.stream_stream(path("Both"))(
                iter(requests.get, None), metadata=bearer(token.secret), timeout=SECONDS_MAX
            )
            requests.put(b"1")
            assert await asyncio.to_thread(next, call) == b"alice"
            changes = subject.status().changes
            successor = admin.rotate(rotate)
            await until(lambda: subject.status().changes > changes)
            for _ in range(3):
                requests.put(b"1")
                assert await asyncio.to_thread(next, call) == b"alice"
            assert await outcome(port, "Unary", successor.secret) == ADMITTED
            # What is left of its life goes as any token does.
            # Not on the loop, which the verifier runs on: the revocation waits for it.
            reached = await asyncio.to_thread(admin.revoke, token_id=token.token.token_id)
            assert reached.propagation == pb.PROPAGATION_COMPLETE
            with pytest.raises(grpc.RpcError) as caught:
                await asyncio.to_thread(next, call)
            requests.put(None)
            assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED)
            assert await outcome(port, "Unary", successor.secret) == ADMITTED
