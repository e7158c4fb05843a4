"""No message passes on a stream, in either direction, once the token it was opened with is revoked."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from tests.client.echo import SECONDS_MAX, aio_echo, bearer, path, refusal, sync_echo
from watchword.testing import FakeAuthority

REVOKED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


class Seen:
    """What reached the handlers, and what they send when told to. Thread-safe."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.to_send: queue.Queue[bytes | None] = queue.Queue()
        self.finished = threading.Event()
        self.read = threading.Event()

    async def next_to_send(self) -> bytes | None:
        return await asyncio.to_thread(self.to_send.get, timeout=SECONDS_MAX)

    # Generators.
    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self.received.append(request)
            yield request

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while (message := await self.next_to_send()) is not None:
                yield message
        finally:
            self.finished.set()

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            self.received.append(request)
            self.read.set()
        await self.next_to_send()
        return b"done"

    # Readers and writers.
    async def both_writes(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            self.received.append(request)
            await context.write(request)

    async def down_writes(self, request: bytes, context: Any) -> None:
        while (message := await self.next_to_send()) is not None:
            await context.write(message)

    async def up_reads(self, requests: Any, context: Any) -> bytes:
        while (request := await context.read()) is not grpc.aio.EOF:
            self.received.append(request)
            self.read.set()
        await self.next_to_send()
        return b"done"

    # Plain functions.
    def both_function(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            self.received.append(request)
            yield request

    def down_function(self, request: bytes, context: Any) -> Iterator[bytes]:
        try:
            while (message := self.to_send.get(timeout=SECONDS_MAX)) is not None:
                yield message
        finally:
            self.finished.set()

    def up_function(self, requests: Iterator[bytes], context: Any) -> bytes:
        for request in requests:
            self.received.append(request)
            self.read.set()
        self.to_send.get(timeout=SECONDS_MAX)
        return b"done"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def token(authority: FakeAuthority) -> str:
    return authority.issue("alice", scopes=["echo.use"])


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.mark.parametrize("form", ["both", "both_writes", "both_function"])
async def test_no_message_comes_in_after_revocation(
    authority: FakeAuthority, token: str, seen: Seen, form: str
) -> None:
    async with aio_echo(authority.verifier(), {"Both": getattr(seen, form)}) as channel:
        call = channel.stream_stream(path("Both"))(metadata=bearer(token), timeout=SECONDS_MAX)
        await call.write(b"1")
        assert await call.read() == b"1"
        authority.revoke(token)
        await call.write(b"2")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert refusal(caught.value) == REVOKED
    assert seen.received == [b"1"]


@pytest.mark.parametrize("form", ["down", "down_writes", "down_function"])
async def test_no_message_goes_out_after_revocation(
    authority: FakeAuthority, token: str, seen: Seen, form: str
) -> None:
    async with aio_echo(authority.verifier(), {"Down": getattr(seen, form)}) as channel:
        call = channel.unary_stream(path("Down"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        seen.to_send.put(b"1")
        assert await call.read() == b"1"
        authority.revoke(token)
        seen.to_send.put(b"2")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert refusal(caught.value) == REVOKED


@pytest.mark.parametrize("form", ["up", "up_reads", "up_function"])
async def test_no_message_of_an_upload_comes_in_after_revocation(
    authority: FakeAuthority, token: str, seen: Seen, form: str
) -> None:
    async with aio_echo(authority.verifier(), {"Up": getattr(seen, form)}) as channel:
        call = channel.stream_unary(path("Up"))(metadata=bearer(token), timeout=SECONDS_MAX)
        authority.revoke(token)
        await call.write(b"1")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert refusal(caught.value) == REVOKED
    assert seen.received == []


@pytest.mark.parametrize("form", ["up", "up_reads", "up_function"])
async def test_the_answer_to_an_upload_does_not_go_out_after_revocation(
    authority: FakeAuthority, token: str, seen: Seen, form: str
) -> None:
    async with aio_echo(authority.verifier(), {"Up": getattr(seen, form)}) as channel:
        call = channel.stream_unary(path("Up"))(iter([b"1"]), metadata=bearer(token), timeout=SECONDS_MAX)
        assert await asyncio.to_thread(seen.read.wait, SECONDS_MAX)
        authority.revoke(token)
        seen.to_send.put(b"go on")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert refusal(caught.value) == REVOKED


async def test_a_handler_that_swallows_the_end_still_gets_and_sends_nothing(
    authority: FakeAuthority, token: str, seen: Seen
) -> None:
    ended = asyncio.Event()

    async def stubborn(requests: Any, context: Any) -> None:
        await context.write(b"ready")
        for _ in range(3):
            with suppress(Exception):
                seen.received.append(await context.read())
            with suppress(Exception):
                await context.write(b"still here")
        ended.set()

    async with aio_echo(authority.verifier(), {"Both": stubborn}) as channel:
        call = channel.stream_stream(path("Both"))(metadata=bearer(token), timeout=SECONDS_MAX)
        assert await call.read() == b"ready"
        authority.revoke(token)
        await call.write(b"1")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        await asyncio.wait_for(ended.wait(), SECONDS_MAX)
    assert refusal(caught.value) == REVOKED
    assert seen.received == []


async def test_the_end_of_a_stream_reaches_the_clean_up_of_its_generator(
    authority: FakeAuthority, token: str, seen: Seen
) -> None:
    async with aio_echo(authority.verifier(), {"Down": seen.down}) as channel:
        call = channel.unary_stream(path("Down"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        seen.to_send.put(b"1")
        assert await call.read() == b"1"
        authority.revoke(token)
        seen.to_send.put(b"2")
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert await asyncio.to_thread(seen.finished.wait, SECONDS_MAX)


async def test_an_outage_in_the_middle_of_a_stream_ends_it_as_unavailable(
    authority: FakeAuthority, token: str, seen: Seen
) -> None:
    async with aio_echo(authority.verifier(), {"Down": seen.down}) as channel:
        call = channel.unary_stream(path("Down"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        seen.to_send.put(b"1")
        assert await call.read() == b"1"
        with authority.unavailable():
            seen.to_send.put(b"2")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
    assert refusal(caught.value) == (grpc.StatusCode.UNAVAILABLE, "VERIFIER_UNAVAILABLE")


async def test_a_unary_call_held_open_is_judged_when_its_request_arrives(authority: FakeAuthority, token: str) -> None:
    async def unary(request: bytes, context: Any) -> bytes:
        return request

    async with aio_echo(authority.verifier(), {"Unary": unary}) as channel:
        # A client-streaming call is a unary one on the wire whose request the caller can hold back.
        call = channel.stream_unary(path("Unary"))(metadata=bearer(token), timeout=SECONDS_MAX)
        await call.wait_for_connection()
        authority.revoke(token)
        await call.write(b"1")
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert refusal(caught.value) == REVOKED


class Requests:
    """Requests of a blocking client, sent when told to."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue()

    def send(self, message: bytes | None) -> None:
        self._queue.put(message)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._queue.get(timeout=SECONDS_MAX)) is not None:
            yield message


def test_thread_pool_no_message_comes_in_after_revocation(authority: FakeAuthority, token: str, seen: Seen) -> None:
    requests = Requests()
    with sync_echo(authority.blocking_verifier(), {"Both": seen.both_function}) as channel:
        call = channel.stream_stream(path("Both"))(iter(requests), metadata=bearer(token), timeout=SECONDS_MAX)
        requests.send(b"1")
        assert next(call) == b"1"
        authority.revoke(token)
        requests.send(b"2")
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        requests.send(None)
    assert refusal(caught.value) == REVOKED
    assert seen.received == [b"1"]


def test_thread_pool_no_message_goes_out_after_revocation(authority: FakeAuthority, token: str, seen: Seen) -> None:
    with sync_echo(authority.blocking_verifier(), {"Down": seen.down_function}) as channel:
        call = channel.unary_stream(path("Down"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        seen.to_send.put(b"1")
        assert next(call) == b"1"
        authority.revoke(token)
        seen.to_send.put(b"2")
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert seen.finished.wait(SECONDS_MAX)
    assert refusal(caught.value) == REVOKED


def test_thread_pool_the_answer_to_an_upload_does_not_go_out_after_revocation(
    authority: FakeAuthority, token: str
) -> None:
    def up(requests: Iterator[bytes], context: Any) -> bytes:
        received = b"".join(requests)
        authority.revoke(token)
        return received

    with sync_echo(authority.blocking_verifier(), {"Up": up}) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(path("Up"))(iter([b"1"]), metadata=bearer(token), timeout=SECONDS_MAX)
    assert refusal(caught.value) == REVOKED


def test_thread_pool_a_handler_that_reads_in_another_thread_is_ended_at_once(
    authority: FakeAuthority, token: str, seen: Seen
) -> None:
    def both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        def read() -> None:
            try:
                seen.received.extend(requests)
            except Exception:
                seen.finished.set()

        reader = threading.Thread(target=read)
        reader.start()
        yield b"ready"
        reader.join(SECONDS_MAX)
        yield b"too late"

    requests = Requests()
    with sync_echo(authority.blocking_verifier(), {"Both": both}) as channel:
        call = channel.stream_stream(path("Both"))(iter(requests), metadata=bearer(token), timeout=SECONDS_MAX)
        assert next(call) == b"ready"
        authority.revoke(token)
        requests.send(b"1")
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        requests.send(None)
        assert seen.finished.wait(SECONDS_MAX)
    assert caught.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAUTHENTICATED)
    assert seen.received == []
