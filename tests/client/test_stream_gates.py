"""An open stream ends as soon as its verifier learns that the token has ended, whatever its handler waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from tests.client.echo import SECONDS_MAX, aio_echo, bearer, path, refusal, sync_echo
from tests.client.subjects import Rig, Subject, until

REVOKED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


class Handlers:
    """Handlers of all forms that wait for what never comes."""

    def __init__(self) -> None:
        self.waits = threading.Event()
        self.over = threading.Event()
        self.ended = threading.Event()

    # Waits for a request.
    async def both_reads(self, requests: Any, context: Any) -> None:
        try:
            self.waits.set()
            await context.read()
        finally:
            self.ended.set()

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        try:
            self.waits.set()
            async for request in requests:
                yield request
        finally:
            self.ended.set()

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            self.waits.set()
            async for _ in requests:
                pass
        finally:
            self.ended.set()
        return b"done"

    # Waits for something else.
    async def both_waits(self, requests: Any, context: Any) -> None:
        await self.forever()

    async def up_waits(self, requests: Any, context: Any) -> bytes:
        await self.forever()
        return b"done"

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self.forever()
        yield b"never"

    async def down_waits(self, request: bytes, context: Any) -> None:
        await self.forever()

    async def forever(self) -> None:
        try:
            self.waits.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    # Plain functions.
    def both_function(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            self.waits.set()
            yield from requests
        finally:
            self.ended.set()

    def down_function(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.wait_over()
        yield b"never"

    def up_function(self, requests: Iterator[bytes], context: Any) -> bytes:
        self.wait_over()
        return b"done"

    def wait_over(self) -> None:
        self.waits.set()
        assert self.over.wait(SECONDS_MAX)
        self.ended.set()


def opened(channel: Any, form: str, token: str) -> Any:
    """An open call of the kind that a handler's name begins with, with nothing sent yet."""
    arguments: dict[str, Any] = {"metadata": bearer(token), "timeout": SECONDS_MAX}
    if form.startswith("both"):
        return channel.stream_stream(path("Both"))(**arguments)
    if form.startswith("up"):
        return channel.stream_unary(path("Up"))(**arguments)
    return channel.unary_stream(path("Down"))(b"", **arguments)


def behaviour(form: str, handler: Any) -> dict[str, Any]:
    return {form.partition("_")[0].capitalize(): handler}


async def ended_call(call: Any) -> grpc.RpcError:
    """The error that a waiting client gets."""
    answer = call.read() if hasattr(call, "read") else call
    with pytest.raises(grpc.RpcError) as caught:
        await answer
    return caught.value


def open_gates(subject: Subject) -> int:
    """How many streams the verifier keeps an eye on."""
    cache = subject.verifier._cache
    # Takes note of those that have ended.
    cache.expire_gates()
    return len(cache._gates)


AIO_FORMS = ["both_reads", "both", "up", "both_waits", "up_waits", "down", "down_waits"]
FUNCTIONS = ["both_function", "down_function", "up_function"]


@pytest.mark.parametrize("form", [*AIO_FORMS, *FUNCTIONS])
async def test_a_revoked_stream_ends_at_once_with_unauthenticated(form: str) -> None:
    rig, handlers = Rig("aio"), Handlers()
    token = rig.issue("echo.use")
    async with (
        rig.attached() as subject,
        aio_echo(subject.verifier, behaviour(form, getattr(handlers, form))) as channel,
    ):
        call = opened(channel, form, token)
        await until(handlers.waits.is_set)
        await rig.revoke(token)
        assert refusal(await ended_call(call)) == REVOKED
        handlers.over.set()
        await until(handlers.ended.is_set)
        await until(lambda: not open_gates(subject))


@pytest.mark.parametrize("form", FUNCTIONS)
async def test_thread_pool_a_revoked_stream_ends_at_once_as_cancelled(form: str) -> None:
    rig, handlers = Rig("sync"), Handlers()
    token = rig.issue("echo.use")
    requests = iter(handlers.over.wait, True)
    async with rig.attached() as subject:

        def use() -> grpc.StatusCode:
            with sync_echo(subject.verifier, behaviour(form, getattr(handlers, form))) as channel:
                arguments: dict[str, Any] = {"metadata": bearer(token), "timeout": SECONDS_MAX}
                if form.startswith("both"):
                    call = channel.stream_stream(path("Both"))(requests, **arguments)
                elif form.startswith("up"):
                    call = channel.stream_unary(path("Up")).future(requests, **arguments)
                else:
                    call = channel.unary_stream(path("Down"))(b"", **arguments)
                code: grpc.StatusCode = call.code()
                handlers.over.set()
                return code

        client = asyncio.create_task(asyncio.to_thread(use))
        await until(handlers.waits.is_set)
        await rig.revoke(token)
        assert await client is grpc.StatusCode.CANCELLED
        await until(handlers.ended.is_set)
        await until(lambda: not open_gates(subject))


async def test_a_handler_that_will_not_end_gets_and_sends_nothing_more() -> None:
    rig, reads = Rig("aio"), list[Any]()
    token = rig.issue("echo.use")
    ready, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(requests: Any, context: Any) -> None:
        ready.set()
        for _ in range(3):
            with suppress(asyncio.CancelledError, Exception):
                await context.write(b"still here")
            with suppress(asyncio.CancelledError, Exception):
                reads.append(await context.read())
        ended.set()

    async with rig.attached() as subject, aio_echo(subject.verifier, {"Both": stubborn}) as channel:
        call = channel.stream_stream(path("Both"))(metadata=bearer(token), timeout=SECONDS_MAX)
        await ready.wait()
        assert await call.read() == b"still here"
        await rig.revoke(token)
        assert refusal(await ended_call(call)) == REVOKED
        await asyncio.wait_for(ended.wait(), SECONDS_MAX)
    assert reads == []


async def test_a_client_that_does_not_read_does_not_keep_a_revoked_handler() -> None:
    rig, ended = Rig("aio"), asyncio.Event()
    token = rig.issue("echo.use")
    sent = 0

    async def flood(request: bytes, context: Any) -> None:
        nonlocal sent
        try:
            while True:
                await context.write(b"0" * 65536)
                sent += 1
        finally:
            ended.set()

    async with rig.attached() as subject, aio_echo(subject.verifier, {"Down": flood}) as channel:
        call = channel.unary_stream(path("Down"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        await call.wait_for_connection()
        await until(lambda: sent)
        await rig.revoke(token)
        await asyncio.wait_for(ended.wait(), SECONDS_MAX)
        call.cancel()


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_an_idle_stream_whose_token_ended_unseen_ends_after_a_flush(kind: str) -> None:
    """A change that a reset swallowed reaches the stream by being judged again."""
    rig = Rig(kind)
    token = rig.issue("echo.use")
    shut = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with rig.attached() as subject:
        stream = subject.verifier.open_stream(token, (), lambda verdict: loop.call_soon_threadsafe(shut.set))
        await subject.check(token)
        with rig.unheard():
            rig.authority.revoke(token)
        rig.watch.reset()
        await asyncio.wait_for(shut.wait(), SECONDS_MAX)
        stream.close()


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_flush_does_not_end_streams_whose_token_is_still_good(kind: str) -> None:
    rig = Rig(kind)
    token = rig.issue("echo.use")
    verdicts: list[Any] = []
    async with rig.attached() as subject:
        stream = subject.verifier.open_stream(token, (), verdicts.append)
        await subject.check(token)
        misses = subject.status().misses
        rig.watch.reset()
        await until(lambda: subject.status().misses > misses)
        await until(lambda: subject.status().entries == 1)
        assert verdicts == []
        stream.close()


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_stream_that_cannot_be_ended_keeps_no_other_from_its_end(kind: str) -> None:
    rig = Rig(kind)
    tokens = rig.issue("echo.use"), rig.issue("echo.use")
    failing, shut = threading.Event(), threading.Event()

    def fail(verdict: Any) -> None:
        failing.set()
        raise RuntimeError("cannot schedule new futures after shutdown")

    async with rig.attached() as subject:
        streams = [
            subject.verifier.open_stream(token, (), one)
            for token, one in zip(tokens, (fail, lambda verdict: shut.set()), strict=True)
        ]
        for token, event in zip(tokens, (failing, shut), strict=True):
            await subject.check(token)
            await rig.revoke(token)
            await until(event.is_set)
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_unary_calls_open_no_gate(kind: str) -> None:
    rig = Rig(kind)
    token = rig.issue("echo.use")
    seen: list[int] = []
    async with rig.attached() as subject:

        async def unary(request: bytes, context: Any) -> bytes:
            seen.append(open_gates(subject))
            return request

        def function(request: bytes, context: Any) -> bytes:
            seen.append(open_gates(subject))
            return request

        if kind == "aio":
            async with aio_echo(subject.verifier, {"Unary": unary}) as channel:
                await channel.unary_unary(path("Unary"))(b"", metadata=bearer(token), timeout=SECONDS_MAX)
        else:
            with sync_echo(subject.verifier, {"Unary": function}) as channel:
                call = channel.unary_unary(path("Unary")).future(b"", metadata=bearer(token), timeout=SECONDS_MAX)
                await asyncio.to_thread(call.result)
    assert seen == [0]
