"""VerifierService.Watch of a FakeAuthority: leases, changes and acknowledgements, to test caching services with.

Much simpler than Watchword's own: one replica, nothing is ever pruned, and nobody is cut for being slow.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import grpc

from watchword.fake_authority import FakeAuthority, ReportedUse
from watchword.identity import current_identity
from watchword.lease import LEASE_SECONDS_DEFAULT, recorder_end
from watchword.protobuf_time import duration_of, seconds_of
from watchword.token import format_token_id, parse_token_id
from watchword.v1 import verifier_service_pb2 as pb
from watchword.v1 import verifier_service_pb2_grpc as pb_grpc
from watchword.v1.token_service_pb2 import Position

_RENEWALS_PER_LEASE: Final = 6


@dataclass(slots=True)
class _Verifier:
    """What is known of a verifier. Outlives its streams."""

    leased_until: float = 0.0
    acknowledged: int = 0
    outbox: queue.SimpleQueue[pb.WatchResponse | None] = field(default_factory=queue.SimpleQueue)


class FakeWatch(pb_grpc.VerifierServiceServicer):
    """Tells verifiers what `authority` revokes, and takes their reports, if `usage_every_seconds` asks for them.
    Thread-safe.
    """

    def __init__(
        self,
        authority: FakeAuthority,
        lease_seconds: float = LEASE_SECONDS_DEFAULT,
        usage_every_seconds: float | None = None,
    ) -> None:
        self._authority: Final = authority
        self._lease_seconds: Final = lease_seconds
        self._usage_every_seconds: Final = usage_every_seconds
        self._changed: Final = threading.Condition()
        self._verifiers: dict[bytes, _Verifier] = {}
        self.renewals_count = 0
        self.resumes_count = 0
        self.releases_count = 0

    def wait_everywhere(self, position: int) -> int:
        """Waits until no verifier can rely any longer on what it knew before `position`; how many acknowledged it."""
        with self._changed:
            while behind := [
                one.leased_until - time.monotonic()
                for one in self._verifiers.values()
                if one.acknowledged < position and one.leased_until > time.monotonic()
            ]:
                self._changed.wait(max(0.0, max(behind)))
            return sum(one.acknowledged >= position for one in self._verifiers.values())

    def move(self) -> None:
        """Asks every verifier to go elsewhere."""
        self._send(pb.WatchResponse(move=pb.Move()))

    def reset(self) -> None:
        """Has every verifier forget all."""
        self._send(pb.WatchResponse(reset=pb.Reset(position=self._position(self._authority.position))))

    def end_streams(self) -> None:
        """Ends every stream, as a proxy in between may."""
        self._send(None)

    def Watch(
        self, request_iterator: Iterable[pb.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        """See VerifierService."""
        requests = iter(request_iterator)
        first = next(requests, None)
        if first is None or first.WhichOneof("message") != "hello":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message is no hello")
        key, service = first.hello.verifier_key, current_identity().subject
        outbox: queue.SimpleQueue[pb.WatchResponse | None] = queue.SimpleQueue()
        stop_listening = self._join(first.hello, outbox)
        context.add_callback(lambda: outbox.put(None))
        threading.Thread(
            target=self._read, args=(key, service, requests, outbox), name="fake-watch", daemon=True
        ).start()
        try:
            yield from iter(outbox.get, None)
        finally:
            stop_listening()

    def _join(self, hello: pb.Hello, outbox: queue.SimpleQueue[pb.WatchResponse | None]) -> Callable[[], None]:
        authority = self._authority

        def tell(number: int, token_id: str) -> None:
            change = pb.Change(number=number, token_ids=[parse_token_id(token_id).bytes], last=True)
            outbox.put(pb.WatchResponse(changes=pb.Changes(changes=[change])))

        # Who joins between two revocations hears of the second, and of nothing twice.
        with authority.still():
            known = authority.position
            resumes = hello.resume_from.epoch == authority.epoch and hello.resume_from.number <= known
            begins_at = self._position(hello.resume_from.number if resumes else known)
            outbox.put(
                pb.WatchResponse(
                    welcome=pb.Welcome(
                        lease=duration_of(self._lease_seconds),
                        renew_every=duration_of(self._lease_seconds / _RENEWALS_PER_LEASE),
                        position=begins_at,
                        usage_every=duration_of(self._usage_every_seconds) if self._usage_every_seconds else None,
                    )
                )
            )
            if not resumes:
                outbox.put(pb.WatchResponse(reset=pb.Reset(position=begins_at)))
            for number, token_id in authority.changes_after(begins_at.number):
                tell(number, token_id)
            stop_listening = authority.listen(tell)
        with self._changed:
            self.resumes_count += resumes
            verifier = self._verifiers.setdefault(hello.verifier_key, _Verifier())
            verifier.acknowledged, verifier.outbox = begins_at.number, outbox
        return stop_listening

    def _read(
        self,
        key: bytes,
        service: str,
        requests: Iterator[pb.WatchRequest],
        outbox: queue.SimpleQueue[pb.WatchResponse | None],
    ) -> None:
        try:
            for request in requests:
                if request.WhichOneof("message") == "usage":
                    self._authority.reported += [_reported(service, use) for use in request.usage.uses]
                else:
                    self._take(key, request, outbox)
        except Exception:
            return
        finally:
            outbox.put(None)

    def _take(self, key: bytes, request: pb.WatchRequest, outbox: queue.SimpleQueue[pb.WatchResponse | None]) -> None:
        which = request.WhichOneof("message")
        # No revocation gets a position between the lease and what is said of it.
        with self._authority.still(), self._changed:
            verifier = self._verifiers[key]
            if which == "renew":
                self.renewals_count += 1
                verifier.leased_until = recorder_end(time.monotonic(), self._lease_seconds)
                verifier.acknowledged = max(verifier.acknowledged, request.renew.applied.number)
                grant = pb.LeaseGrant(
                    nonce=request.renew.nonce,
                    position=self._position(self._authority.position),
                    lease=duration_of(self._lease_seconds),
                )
                outbox.put(pb.WatchResponse(grant=grant))
            elif which == "acknowledge":
                verifier.acknowledged = max(verifier.acknowledged, request.acknowledge.applied.number)
            elif which == "release":
                self.releases_count += 1
                verifier.leased_until = 0.0
            self._changed.notify_all()

    def _send(self, message: pb.WatchResponse | None) -> None:
        with self._changed:
            for verifier in self._verifiers.values():
                verifier.outbox.put(message)

    def _position(self, number: int) -> Position:
        return Position(epoch=self._authority.epoch, number=number)


def _reported(service: str, use: pb.Use) -> ReportedUse:
    return ReportedUse(
        service,
        format_token_id(UUID(bytes=use.token_id)),
        use.use_count,
        seconds_of(use.ago),
        use.address,
        tuple(use.scopes),
        use.refused_count,
        use.refused_address,
    )
