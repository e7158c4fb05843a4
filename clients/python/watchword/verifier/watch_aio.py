"""Keeps a verifier's watch open, in grpc.aio: one stream after the other, each going on where the last one ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeAlias

import grpc

from watchword.lease import Clock
from watchword.v1 import verifier_service_pb2 as pb
from watchword.v1.verifier_service_pb2_grpc import VerifierServiceStub
from watchword.verifier.attachment import (
    ENDED,
    HANDSHAKE_SECONDS_MAX,
    MOVED,
    RELEASE_SECONDS_MAX,
    SILENT,
    WATCH_PROTOCOL,
    Attachment,
    cause_of,
    silence_seconds_max,
)
from watchword.verifier.cache import Cache
from watchword.verifier.session import WatchProtocolError, WatchSession

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]"


class Watch:
    """The task that watches. Belongs to the loop it is started on."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        cache: Cache,
        clock: Clock,
        attachment: Attachment,
        new_session: Callable[[], WatchSession],
    ) -> None:
        self._stub: Final = VerifierServiceStub(channel)
        self._cache: Final = cache
        self._clock: Final = clock
        self._attachment: Final = attachment
        self._new_session: Final = new_session
        self._stream: _Stream | None = None
        self._leaving = False
        self._task: Final = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stops relying on the lease, tells the replica so, and ends. Takes at most RELEASE_SECONDS_MAX."""
        self._leaving = True
        self._cache.lapse()
        self._attachment.closed()
        if self._stream is not None:
            self._stream.leave()
            await asyncio.wait([self._task], timeout=RELEASE_SECONDS_MAX)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._leaving:
            cause = await self._attend()
            if self._leaving:
                return
            self._attachment.lost(cause, self._cache.lease.remaining_seconds(self._clock))
            await asyncio.sleep(self._attachment.retry_seconds())

    async def _attend(self) -> str:
        """One stream, from hello to its end; why it ended."""
        stream = None
        try:
            stream = self._stream = _Stream(self._stub.Watch, self._new_session())
            return await stream.run(self._granted)
        except WatchProtocolError:
            self._cache.forget()
            return WATCH_PROTOCOL
        except grpc.RpcError as error:
            cause = cause_of(error)
            if cause == WATCH_PROTOCOL:
                # It cannot be resumed from where this verifier is.
                self._cache.forget()
            return cause
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled but the call, by its channel.
            return "CANCELLED"
        except Exception as error:  # a token source that fails, a closed channel: the watch is tried again in any case
            return type(error).__name__
        finally:
            self._stream = None
            if stream is not None:
                await stream.close()

    def _granted(self) -> None:
        if not self._attachment.is_attached and self._cache.lease.live(self._clock):
            self._attachment.attached(self._cache.lease.remaining_seconds(self._clock))


class _Stream:
    """One call of Watch. gRPC takes what is sent from an iterator, whoever runs the stream reads.

    It is not written to: of a call that came through interceptors and was written to, gRPC forgets a task when the call
    ends, held by tests/client/test_caching_faults.py.
    """

    def __init__(self, watch: Callable[[AsyncIterator[pb.WatchRequest]], _Call], session: WatchSession) -> None:
        self._session: Final = session
        self._outbox: asyncio.Queue[pb.WatchRequest | None] = asyncio.Queue()
        self._outbox.put_nowait(session.hello())
        self._call: Final = watch(self._requests())

    async def run(self, received: Callable[[], None]) -> str:
        """Takes in what comes until the stream ends; why it ended. Raises as gRPC does, and WatchProtocolError."""
        session, loop = self._session, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS_MAX) as silence:
                while True:
                    message: Any = await self._call.read()
                    if message is grpc.aio.EOF:
                        return MOVED if session.moved else ENDED
                    attached, moved = session.attached, session.moved
                    for reply in session.receive(message):
                        self._outbox.put_nowait(reply)
                    if session.attached and not attached:
                        # The first lease is asked for at once, the next ones at their time.
                        self._outbox.put_nowait(session.renew())
                    if session.moved:
                        if not moved:
                            self.leave()
                            silence.reschedule(loop.time() + RELEASE_SECONDS_MAX)
                    else:
                        silence.reschedule(loop.time() + silence_seconds_max(session.renew_every_seconds))
                    received()
        except TimeoutError:
            return MOVED if session.moved else SILENT

    def leave(self) -> None:
        """Tells what there is to tell, and releases the lease; the stream then ends."""
        # A replica that goes away may have no time for it: the next one is told.
        report = None if self._session.moved else self._session.report()
        if report is not None:
            self._outbox.put_nowait(report)
        self._outbox.put_nowait(self._session.release())
        self._outbox.put_nowait(None)

    async def close(self) -> None:
        """Leaves nothing behind: a call that is only forgotten would go on."""
        self._outbox.put_nowait(None)
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[pb.WatchRequest]:
        session, loop = self._session, asyncio.get_running_loop()
        renew_at = loop.time()
        report_at = math.inf
        while True:
            message: pb.WatchRequest | None
            try:
                # Also while messages keep coming: a renewal is not put off.
                due_at = min(renew_at, report_at) if session.attached and not session.moved else None
                async with asyncio.timeout_at(due_at):
                    message = await self._outbox.get()
            except TimeoutError:
                if loop.time() >= renew_at:
                    message = session.renew()
                else:
                    message = session.report()
                    report_at = loop.time() + session.report_in_seconds
                    if message is None:
                        continue
            if message is None:
                return
            if message.HasField("renew"):
                renew_at = loop.time() + session.renew_every_seconds
                if report_at == math.inf:
                    report_at = loop.time() + session.report_in_seconds
            yield message
