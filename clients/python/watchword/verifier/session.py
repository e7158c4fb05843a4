"""One Watch stream as the verifier sees it: what it says, and what it makes of what it hears. No I/O."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from watchword.lease import Clock, Instant, instant
from watchword.protobuf_time import duration_of, seconds_of
from watchword.scope import is_scope
from watchword.token import format_token_id, parse_token_id
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier.cache import Cache
from watchword.verifier.usage import Used

# Renewals without an answer. The answer to an older one is no longer of use.
_PENDING_MAX: Final = 64
# What a server says is bounded: renewing without a pause would take the service's own time, and renewing once a year
# would hide that nobody is there.
_RENEW_EVERY_SECONDS_MIN: Final = 0.1
_USAGE_EVERY_SECONDS_MIN: Final = 0.1
_USAGE_EVERY_SECONDS_MAX: Final = 86_400.0
# The service's own limits for one report.
_USES_MAX: Final = 1_000
_SCOPES_MAX: Final = 64
_REPORT_BYTES_MAX: Final = 768 * 1024
"""Less than that by what uses without scopes take."""
_FIELD_BYTES: Final = 4
# When to report, in parts of the interval: first anywhere in it, so that verifiers that were welcomed together do not
# report together, and then a little before it is over. What did not fit follows sooner, and yet so that no interval,
# wherever it is counted from, sees more than three reports and a last one: from five on they are refused.
_FIRST_REPORT: Final = (0.05, 0.9)
_NEXT_REPORT: Final = (0.8, 0.9)
_FURTHER_REPORT: Final = (0.4, 0.45)


class WatchProtocolError(Exception):
    """The server sent what no server sends. The stream must be closed; nothing was changed by the message."""


class WatchSession:
    """The state of one stream. `hello` first, then every message received goes through `receive`, in order.

    Belongs to one stream for its life: a renewal is answered here or never. One thread receives while another renews or
    releases: each of these is whole, so that no renewal tells of a position whose gates are still being shut, and no
    grant counts once the lease is released.
    """

    def __init__(
        self, cache: Cache, clock: Clock, *, lease_seconds: float, name: str, instance: str, library: str
    ) -> None:
        self._cache: Final = cache
        self._clock: Final = clock
        self._lease_seconds: Final = lease_seconds
        self._lock: Final = threading.Lock()
        self._name: Final = name
        self._instance: Final = instance
        self._library: Final = library
        self._resume_from: tuple[bytes, int] | None = None
        self._epoch: bytes | None = None
        self._pending: Final[dict[int, Instant]] = {}
        self._welcomed = False
        self._leaving = False
        self.attached = False
        """Whether changes are being received: only now is it time to renew."""
        self.moved = False
        """The replica goes away: send `release`, and watch elsewhere."""
        self.renew_every_seconds = 0.0
        """How often to renew. Known after the welcome."""
        self.report_in_seconds = math.inf
        """When to report what was admitted from memory, counted from the welcome or the last report."""
        self._usage_every_seconds = math.inf

    def hello(self) -> pb.WatchRequest:
        """The first message."""
        cache = self._cache
        hello = pb.Hello(
            verifier_key=cache.verifier_key,
            lease=duration_of(self._lease_seconds),
            name=self._name,
            instance=self._instance,
            library=self._library,
        )
        if cache.epoch is not None:
            self._resume_from = (cache.epoch, cache.applied)
            hello.resume_from.CopyFrom(_position(*self._resume_from))
        return pb.WatchRequest(hello=hello)

    def renew(self) -> pb.WatchRequest:
        """Asks for a lease that counts from now: to be sent at once. Only while attached."""
        with self._lock:
            assert self.attached
            assert self._epoch is not None
            sent = self._sent_at()
            nonce = self._cache.next_nonce()
            self._pending[nonce] = sent
            if len(self._pending) > _PENDING_MAX:
                del self._pending[next(iter(self._pending))]
            return pb.WatchRequest(renew=pb.Renew(nonce=nonce, applied=_position(self._epoch, self._cache.applied)))

    def release(self) -> pb.WatchRequest:
        """Stops relying on the lease, then says so: to be sent as the last message. Later grants count for nothing."""
        with self._lock:
            self._leaving = True
            self._cache.lapse()
        return pb.WatchRequest(release=pb.Release())

    def report(self) -> pb.WatchRequest | None:
        """What was admitted from memory and not told before, to be sent at once; None if there is nothing."""
        uses = self._cache.uses.take(_USES_MAX) if self._usage_every_seconds < math.inf else ()
        self._report_in(_FURTHER_REPORT if len(uses) == _USES_MAX else _NEXT_REPORT)
        if not uses:
            return None
        now = self._clock.boottime()
        return pb.WatchRequest(usage=pb.UsageReport(uses=_fitting([_use(used, now) for used in uses])))

    def receive(self, message: pb.WatchResponse) -> Sequence[pb.WatchRequest]:
        """Takes one message in; what to send in return. Raises WatchProtocolError."""
        with self._lock:
            return self._receive(message)

    def _receive(self, message: pb.WatchResponse) -> Sequence[pb.WatchRequest]:
        which = message.WhichOneof("message")
        if not self._welcomed:
            if which != "welcome":
                raise WatchProtocolError("the first message is no welcome")
            self._welcome(message.welcome)
            return ()
        applied = self._cache.applied
        if which == "reset":
            self._reset(message.reset)
            return (self._acknowledge(),)
        if which == "move":
            self.moved = self._leaving = True
            return ()
        if not self.attached:
            raise WatchProtocolError("neither resumed nor reset")
        if which == "changes":
            self._changes(message.changes)
        elif which == "grant":
            self._grant(message.grant)
        else:
            raise WatchProtocolError("a message out of place")
        return (self._acknowledge(),) if self._cache.applied > applied else ()

    def _welcome(self, welcome: pb.Welcome) -> None:
        renew_every_seconds = seconds_of(welcome.renew_every)
        if not renew_every_seconds > 0:
            raise WatchProtocolError("no time to renew at")
        self._epoch = _epoch(welcome.position)
        longest = max(_RENEW_EVERY_SECONDS_MIN, self._lease_seconds)
        self.renew_every_seconds = min(max(renew_every_seconds, _RENEW_EVERY_SECONDS_MIN), longest)
        self._welcomed = True
        self._count_uses(welcome)
        # Also when it was forked or reset since the hello: what was said then no longer stands.
        self.attached = (self._epoch, welcome.position.number) == self._resume_from == self._now()

    def _count_uses(self, welcome: pb.Welcome) -> None:
        every_seconds = seconds_of(welcome.usage_every)
        # An authority that is older than this library takes no reports, and says nothing of them.
        if every_seconds > 0:
            self._usage_every_seconds = min(max(every_seconds, _USAGE_EVERY_SECONDS_MIN), _USAGE_EVERY_SECONDS_MAX)
        self._cache.uses.want(every_seconds > 0)
        self._report_in(_FIRST_REPORT)

    def _report_in(self, parts: tuple[float, float]) -> None:
        self.report_in_seconds = self._usage_every_seconds * random.uniform(*parts)  # noqa: S311  # no secret

    def _reset(self, reset: pb.Reset) -> None:
        self._epoch = _epoch(reset.position)
        self._cache.flush(self._epoch, reset.position.number)
        self.attached = True

    def _changes(self, changes: pb.Changes) -> None:
        self._check_epoch()
        try:
            parts = [
                (part.number, [format_token_id(UUID(bytes=one)) for one in part.token_ids], part.everything, part.last)
                for part in changes.changes
            ]
        except ValueError:
            raise WatchProtocolError("a token id that is none") from None
        for number, token_ids, everything, last in parts:
            self._cache.apply(number, token_ids, everything=everything, last=last)

    def _grant(self, grant: pb.LeaseGrant) -> None:
        sent = self._pending.pop(grant.nonce, None)
        if self._leaving:
            return
        if sent is None:
            raise WatchProtocolError("a grant that nobody asked for here")
        self._check_epoch()
        # The shorter of what was asked for and what is granted: the replica waits for what it granted.
        lease_seconds = min(seconds_of(grant.lease), self._lease_seconds)
        self._cache.grant(sent, lease_seconds, grant.position.epoch, grant.position.number)

    def _sent_at(self) -> Instant:
        """What a lease counts from: before the request is sent."""
        return instant(self._clock)

    def _acknowledge(self) -> pb.WatchRequest:
        assert self._epoch is not None
        return pb.WatchRequest(acknowledge=pb.Acknowledge(applied=_position(self._epoch, self._cache.applied)))

    def _now(self) -> tuple[bytes | None, int]:
        return self._cache.epoch, self._cache.applied

    def _check_epoch(self) -> None:
        # Changes of one history must never be counted in another: another stream has reset the cache meanwhile.
        if self._cache.epoch != self._epoch:
            raise WatchProtocolError("the epoch is no longer this stream's")


def _epoch(position: token_service_pb2.Position) -> bytes:
    if not position.epoch:
        raise WatchProtocolError("a position without an epoch")
    return position.epoch


def _position(epoch: bytes, number: int) -> token_service_pb2.Position:
    return token_service_pb2.Position(epoch=epoch, number=number)


def _use(used: Used, now: float) -> pb.Use:
    return pb.Use(
        token_id=parse_token_id(used.token_id).bytes,
        use_count=used.count,
        ago=duration_of(max(0.0, now - used.last_at)) if used.count else None,
        address=used.address,
        # One that the service knows no such scope by would cost the stream.
        scopes=sorted(filter(is_scope, used.scopes))[:_SCOPES_MAX],
        refused_count=used.refused_count,
        refused_address=used.refused_address,
    )


def _fitting(uses: list[pb.Use]) -> list[pb.Use]:
    """What the service reads of one message; more would cost the stream, so what exceeds it goes without its scopes."""
    room = _REPORT_BYTES_MAX
    for use in uses:
        room -= use.ByteSize() + _FIELD_BYTES
        if room < 0:
            use.ClearField("scopes")
    return uses
