"""A verifier's side of a watch, by hand: every message is sent when the test says so."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, Refusal, refusal_of
from watchword.v1 import token_service_pb2 as token_pb
from watchword.v1 import verifier_service_pb2 as pb
from watchword.v1 import verifier_service_pb2_grpc

WATCH_PATH = "/watchword.v1.VerifierService/Watch"
WAIT_SECONDS_MAX = 30


class Watcher:
    """One stream. What it is sent lies in a queue until a test asks for it."""

    def __init__(self, party: Party, *, key: bytes | None = None, lease_seconds: float = 2.0) -> None:
        self.key = key or uuid4().bytes
        self.position = token_pb.Position()
        self._lease_seconds = lease_seconds
        self._outgoing: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._nonces = itertools.count(1)
        self._kept: queue.SimpleQueue[pb.WatchResponse] | None = None
        self.call = verifier_service_pb2_grpc.VerifierServiceStub(party.channel).Watch(
            iter(self._outgoing.get, None), metadata=party.metadata, timeout=120
        )

    def send(self, message: pb.WatchRequest) -> None:
        """Any message."""
        self._outgoing.put(message)

    def hello(self, **fields: object) -> pb.Welcome:
        """Says hello; the welcome, after a reset if one follows."""
        hello = pb.Hello(
            verifier_key=self.key, name="orders", instance="test", library="hand", lease=duration(self._lease_seconds)
        )
        hello.MergeFrom(pb.Hello(**fields))  # type: ignore[arg-type]
        self.send(pb.WatchRequest(hello=hello))
        welcome = self.expect("welcome").welcome
        self.position.CopyFrom(welcome.position)
        if not hello.HasField("resume_from"):
            self.position.CopyFrom(self.expect("reset").reset.position)
        return welcome

    def renew(self) -> pb.LeaseGrant:
        """Asks for a lease and waits for it."""
        nonce = next(self._nonces)
        self.send(pb.WatchRequest(renew=pb.Renew(nonce=nonce, applied=self.position)))
        grant = self.expect("grant").grant
        assert grant.nonce == nonce
        return grant

    def attach(self) -> Self:
        """Hello and a first lease."""
        self.hello()
        self.renew()
        return self

    def acknowledge(self, number: int | None = None) -> None:
        """Acknowledges where it stands, or any number."""
        applied = token_pb.Position(epoch=self.position.epoch, number=self.position.number)
        if number is not None:
            applied.number = number
        self.send(pb.WatchRequest(acknowledge=pb.Acknowledge(applied=applied)))

    def release(self) -> None:
        """Gives up its lease."""
        self.send(pb.WatchRequest(release=pb.Release()))

    def expect(self, kind: str) -> pb.WatchResponse:
        """The next message of this kind; changes on the way are applied, and not acknowledged."""
        while True:
            message = next(self.call) if self._kept is None else self._kept.get(timeout=WAIT_SECONDS_MAX)
            if message.HasField("changes"):
                self._apply(message.changes)
            if message.WhichOneof("message") == kind:
                return message

    def keep_up(self) -> None:
        """From now on acknowledges changes by itself, in a thread, until the stream ends."""
        self._kept = queue.SimpleQueue()
        threading.Thread(target=self._keep_up, args=(self._kept,), daemon=True).start()

    def _keep_up(self, kept: queue.SimpleQueue[pb.WatchResponse]) -> None:
        with suppress(grpc.RpcError):
            for message in self.call:
                if message.HasField("changes"):
                    self._apply(message.changes)
                    self.acknowledge()
                else:
                    kept.put(message)

    def changes(self, number: int) -> set[bytes]:
        """Reads until it has applied this position; the ids on the way."""
        ids: set[bytes] = set()
        while self.position.number < number:
            message = self.expect("changes")
            ids.update(one for change in message.changes.changes for one in change.token_ids)
        return ids

    def _apply(self, changes: pb.Changes) -> None:
        for change in changes.changes:
            assert change.number == self.position.number + 1
            if change.last:
                self.position.number = change.number

    def ended(self) -> Refusal:
        """How the server ended the stream."""
        try:
            while True:
                next(self.call)
        except StopIteration:
            raise AssertionError("the stream ended without a status") from None
        except grpc.RpcError as error:
            return refusal_of(error)

    def leave(self) -> None:
        """Releases, and waits until the server has heard it."""
        self.release()
        self._outgoing.put(None)
        if self._kept is None:
            # A status comes behind what is unread.
            with suppress(grpc.RpcError):
                for _ in self.call:
                    pass
        self.call.code()

    def cut(self) -> None:
        """Ends the stream without a word."""
        self._outgoing.put(None)
        self.call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()


def duration(seconds: float) -> Duration:
    """A Duration."""
    made = Duration()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


@contextmanager
def attached(party: Party, *, lease_seconds: float = 2.0) -> Iterator[Watcher]:
    """A watcher with a lease, which it releases at the end if its stream lasts."""
    with Watcher(party, lease_seconds=lease_seconds) as watcher:
        yield watcher.attach()
        watcher.leave()
