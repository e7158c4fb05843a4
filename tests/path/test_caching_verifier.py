"""The client library's caches against a running Watchword: from memory, and never after a revocation was complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.client.echo import SECONDS_MAX, aio_echo, bearer, path, refusal
from tests.client.subjects import AioSubject, Subject, SyncSubject, until
from tests.conftest import Watchword, running_watchword
from watchword import aio, sync
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub
from watchword.verifier import Active, Inactive


class Authority:
    """The administrator of a running Watchword."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.token = token

    async def issue(self, subject: str, audience: str, *scopes: str) -> str:
        request = pb.IssueRequest(subject=subject, audiences=[audience], scopes=scopes, ttl=Duration(seconds=600))
        return str((await self._call("Issue", request)).secret)

    async def register(self, scope: str) -> None:
        await self._call("RegisterScopes", pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=scope)]))

    async def revoke(self, token: str) -> pb.RevokeResponse:
        response: pb.RevokeResponse = await self._call("Revoke", pb.RevokeRequest(token=token))
        return response

    async def _call(self, method: str, request: Any) -> Any:
        async with aio.connect(self.address, token=self.token) as channel:
            return await getattr(TokenServiceStub(channel), method)(request, timeout=SECONDS_MAX)

    @asynccontextmanager
    async def subject(self, kind: str) -> AsyncIterator[Subject]:
        """A caching verifier of the service `orders` that has its lease."""
        own = await self.issue("orders", "watchword", "watchword.validate")
        subject: Subject
        if kind == "aio":
            async with aio.connect(self.address, token=own, keepalive_seconds=10) as channel:
                subject = AioSubject(aio.CachingVerifier(channel, name="orders", timeout_seconds=SECONDS_MAX))
                async with self._attached(subject):
                    yield subject
        else:
            with sync.connect(self.address, token=own, keepalive_seconds=10) as blocking_channel:
                subject = SyncSubject(
                    sync.CachingVerifier(blocking_channel, name="orders", timeout_seconds=SECONDS_MAX)
                )
                async with self._attached(subject):
                    yield subject

    @asynccontextmanager
    async def _attached(self, subject: Subject) -> AsyncIterator[None]:
        try:
            await subject.start()
            await until(lambda: subject.status().caching)
            yield
        finally:
            await subject.close()


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_cached_token_is_refused_once_its_revocation_is_complete(watchword: Watchword, kind: str) -> None:
    authority = Authority(watchword.address, watchword.admin_token)
    async with authority.subject(kind) as subject:
        for _ in range(5):
            token = await authority.issue("alice", "orders")
            assert isinstance(await subject.check(token), Active)
            hits = subject.status().hits
            assert isinstance(await subject.check(token), Active)
            assert subject.status().hits == hits + 1
            assert (await authority.revoke(token)).propagation == pb.PROPAGATION_COMPLETE
            assert await subject.check(token) == Inactive()
        assert subject.status().changes >= 5


async def test_a_waiting_stream_ends_with_the_revocation(watchword: Watchword) -> None:
    authority = Authority(watchword.address, watchword.admin_token)
    waits = asyncio.Event()

    async def both(requests: Any, context: Any) -> None:
        waits.set()
        await context.read()

    async with (
        authority.subject("aio") as subject,
        aio_echo(subject.verifier, {"Both": both}) as channel,
    ):
        await authority.register("echo.use")
        token = await authority.issue("alice", "orders", "echo.use")
        call = channel.stream_stream(path("Both"))(metadata=bearer(token), timeout=SECONDS_MAX)
        await asyncio.wait_for(waits.wait(), SECONDS_MAX)
        await authority.revoke(token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert refusal(caught.value) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_verifier_lives_through_the_restart_of_its_server(dsn: str, kind: str) -> None:
    with running_watchword(dsn) as running:
        server = running.server
        authority = Authority(server.address, running.admin_token)
        token = await authority.issue("alice", "orders")
        async with authority.subject(kind) as subject:
            assert isinstance(await subject.check(token), Active)
            server.environment["WATCHWORD_LISTEN"] = server.address
            await asyncio.to_thread(server.stop)
            # It was asked to go elsewhere, and gave its lease back.
            assert not subject.status().caching
            await asyncio.to_thread(server.start)
            await until(lambda: subject.status().caching)
            assert isinstance(await subject.check(token), Active)
            await authority.revoke(token)
            assert await subject.check(token) == Inactive()
