"""Keeps a verifier's watch open, with threads: watch_aio's, for thread-pool servers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

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


class Watch:
    """The threads that watch. They are daemons: they hold up no interpreter's end."""

    def __init__(
        self,
        channel: grpc.Channel,
        cache: Cache,
        clock: Clock,
        attachment: Attachment,
        new_session: Callable[[], WatchSession],
    ) -> None:
        self._stub = VerifierServiceStub(channel)
        self._cache: Final = cache
        self._clock: Final = clock
        self._attachment: Final = attachment
        self._new_session: Final = new_session
        self._stream: _Stream | None = None
        self._leaving: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="watchword-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops relying on the lease, tells the replica so, and ends. Takes at most about RELEASE_SECONDS_MAX."""
        self._leaving.set()
        self._cache.lapse()
        self._attachment.closed()
        stream = self._stream
        if stream is not None:
            stream.leave()
            self._thread.join(RELEASE_SECONDS_MAX)
            stream.cancel()
        self._thread.join(RELEASE_SECONDS_MAX)

    def _run(self) -> None:
        while not self._leaving.is_set():
            cause = self._attend()
            if self._leaving.is_set():
                return
            self._attachment.lost(cause, self._cache.lease.remaining_seconds(self._clock))
            self._leaving.wait(self._attachment.retry_seconds())

    def _attend(self) -> str:
        """One stream, from hello to its end; why it ended."""
        try:
            stream = self._stream = _Stream(self._stub.Watch, self._new_session(), self._granted)
            if self._leaving.is_set():
                stream.leave()
            return stream.run()
        except WatchProtocolError:
            self._cache.forget()
            return WATCH_PROTOCOL
        except grpc.RpcError as error:
            cause = cause_of(error)
            if cause == WATCH_PROTOCOL:
                # It cannot be resumed from where this verifier is.
                self._cache.forget()
            return cause
        except Exception as error:  # a token source that fails, a closed channel: the watch is tried again in any case
            return type(error).__name__
        finally:
            stream_left, self._stream = self._stream, None
            if stream_left is not None:
                stream_left.close()

    def _granted(self) -> None:
        if not self._attachment.is_attached and self._cache.lease.live(self._clock):
            self._attachment.attached(self._cache.lease.remaining_seconds(self._clock))


class _Stream:
    """One call of Watch: a thread of its own reads, whoever runs it keeps the time, gRPC's thread writes."""

    def __init__(self, watch: Callable[..., Any], session: WatchSession, received: Callable[[], None]) -> None:
        self._session: Final = session
        self._received: Final = received
        self._outbox: Final[queue.SimpleQueue[pb.WatchRequest | None]] = queue.SimpleQueue()
        self._changed: Final = threading.Condition()
        self._heard_at = time.monotonic()
        self._attached_at: float | None = None
        self._moved_at: float | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._outbox.put(session.hello())
        self._call: Final = watch(iter(self._outbox.get, None))
        self._reader: Final = threading.Thread(target=self._read, name="watchword-watch-reader", daemon=True)

    def run(self) -> str:
        """Renews at its time until the stream ends; why it ended. Raises as gRPC does, and WatchProtocolError."""
        self._reader.start()
        renewed_at: float | None = None
        report_at: float | None = None
        with self._changed:
            while not self._ended:
                now = time.monotonic()
                if now >= (silent_at := self._silent_at()):
                    return SILENT if self._moved_at is None else MOVED
                until = silent_at
                if self._attached_at is not None and self._moved_at is None:
                    # The first lease is asked for at once, the next ones at their time, whatever else is going on.
                    if renewed_at is None or now >= renewed_at + self._session.renew_every_seconds:
                        renewed_at = now
                        self._outbox.put(self._session.renew())
                    if report_at is None:
                        report_at = now + self._session.report_in_seconds
                    elif now >= report_at:
                        report = self._session.report()
                        if report is not None:
                            self._outbox.put(report)
                        report_at = now + self._session.report_in_seconds
                    until = min(until, renewed_at + self._session.renew_every_seconds, report_at)
                self._changed.wait(max(0.0, until - now))
        if self._error is not None:
            raise self._error
        return ENDED if self._moved_at is None else MOVED

    def leave(self) -> None:
        """Tells what there is to tell, and releases the lease; the stream then ends."""
        # A replica that goes away may have no time for it: the next one is told.
        report = None if self._session.moved else self._session.report()
        if report is not None:
            self._outbox.put(report)
        self._outbox.put(self._session.release())
        self._outbox.put(None)

    def cancel(self) -> None:
        """Ends the call at once."""
        self._call.cancel()

    def close(self) -> None:
        """Leaves nothing behind: a call that is only forgotten would go on, and its writer wait for ever."""
        self._call.cancel()
        self._outbox.put(None)
        if self._reader.ident is not None:
            self._reader.join(RELEASE_SECONDS_MAX)

    def _silent_at(self) -> float:
        """When to stop waiting for the other side; the lock is held."""
        if self._moved_at is not None:
            return self._moved_at + RELEASE_SECONDS_MAX
        if not self._session.renew_every_seconds:
            return self._heard_at + HANDSHAKE_SECONDS_MAX
        return self._heard_at + silence_seconds_max(self._session.renew_every_seconds)

    def _read(self) -> None:
        try:
            for message in self._call:
                self._receive(message)
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _receive(self, message: pb.WatchResponse) -> None:
        session = self._session
        for reply in session.receive(message):
            self._outbox.put(reply)
        self._received()
        with self._changed:
            self._heard_at = time.monotonic()
            if session.attached and self._attached_at is None:
                self._attached_at = self._heard_at
            if session.moved and self._moved_at is None:
                self._moved_at = self._heard_at
                self.leave()
            self._changed.notify_all()
