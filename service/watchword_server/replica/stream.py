"""One Watch stream at the replica: what may be said on it, and what is sent, in which order.

There is no queue of changes. The stream has its place in the ledger's log and reads on from there, so a verifier that
reads slowly costs no memory; what it is owed besides (grants) is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from watchword.lease import Clock
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica import refusal
from watchword_server.replica.change_log import Place
from watchword_server.replica.flood import FloodGate
from watchword_server.replica.hello import checked, lease_asked_seconds
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.records import Watcher
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.usage import UsageReports, uses_of

HELLO_SECONDS_MAX: Final = 5.0
ACK_TIMEOUT_SECONDS: Final = 5.0
GRANTS_WAITING_MAX: Final = 16
RENEWALS_PER_LEASE: Final = 6
RENEW_EVERY_SECONDS_MIN: Final = 0.1


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened the stream, as the pipeline knows it."""

    address: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Granted:
    """A lease that was recorded and is to be told once everything up to `number` was."""

    nonce: int
    number: int
    lease_seconds: float


class WatcherStream:
    """One stream's state. `ready` is called whenever `take` may have something to send. Without `reports` the verifier
    is not asked for any."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        caller: Caller,
        ready: Callable[[], None],
        ack_timeout_seconds: float = ACK_TIMEOUT_SECONDS,
        reports: UsageReports | None = None,
    ) -> None:
        self.waits_for_number: int | None = None
        self.acked = -1
        self._ledger = ledger
        self._clock = clock
        self._caller = caller
        self._ready = ready
        self._ack_timeout_seconds = ack_timeout_seconds
        self._opened_at = clock.boottime()
        self._reports = reports
        self._flood = FloodGate(clock, report_every_seconds=0 if reports is None else reports.every_seconds)
        self._watcher: Watcher | None = None
        self._lease_seconds = 0.0
        self._resume: token_service_pb2.Position | None = None
        self._epoch: UUID | None = None
        self._place: Place | None = None
        self._told_max = -1
        self._known_at_start = -1
        self._behind_since: float | None = None
        self._welcome: pb.WatchResponse | None = None
        self._asked: int | None = None
        self._grants: deque[_Granted] = deque()
        self._moved = False
        self._refused: WatchRefusedError | None = None

    @property
    def watcher(self) -> Watcher:
        """Who said hello."""
        assert self._watcher is not None, "a stream is attached by its hello"
        return self._watcher

    def receive(self, message: pb.WatchRequest) -> None:
        """Takes in one message. Raises WatchRefusedError, after which the stream is over."""
        self._raise_if_over()
        try:
            self._receive(message)
        except WatchRefusedError as error:
            self._refused = error
            raise
        self._ready()

    def take(self) -> pb.WatchResponse | None:
        """The next message to send; None: nothing until `ready`. Raises WatchRefusedError when the stream was cut."""
        self._raise_if_over()
        response = self._next()
        if response is not None:
            self._flood.sent()
        return response

    def polled(self) -> None:
        """The feed was asked after the hello turned out to be ahead of what was known here."""
        if self.waits_for_number is None:
            return
        self.waits_for_number = None
        try:
            self._begin()
        except WatchRefusedError as error:
            self._refused = error
            raise
        if self.waits_for_number is not None:
            self._refused = refusal.protocol("resume_from lies ahead of every revocation")
            raise self._refused
        self._ready()

    def check(self) -> None:
        """To be called every second or so. Raises WatchRefusedError for one that is silent where it should not be."""
        self._raise_if_over()
        now = self._clock.boottime()
        if self._watcher is None:
            if now - self._opened_at >= HELLO_SECONDS_MAX:
                self._refused = refusal.protocol("the first message, a hello, did not come")
        elif self._lags(now):
            self._refused = refusal.lagging()
        self._raise_if_over()

    @property
    def owes(self) -> bool:
        """Whether the verifier has yet to say something, a hello or an acknowledgement: only then need `check` be
        called. It begins to owe when `ready` is called, or by what `take` returns."""
        return self._watcher is None or self._behind_since is not None

    def close(self) -> None:
        """The stream is over, for whatever reason. What was granted on it stays recorded."""
        if self._refused is None:
            self._refused = WatchRefusedError("CANCELLED", "CLOSED", "the stream is over")
        if self._watcher is not None:
            self._ledger.detach(self)

    def wake(self) -> None:
        """See AttachedStream."""
        if self._behind_since is None and self.acked < (self._ledger.number or 0):
            self._behind_since = self._clock.boottime()
        self._ready()

    def replaced(self) -> None:
        """See AttachedStream."""
        self._refused = refusal.replaced()
        self._ready()

    def _raise_if_over(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _receive(self, message: pb.WatchRequest) -> None:
        assert self.waits_for_number is None, "the feed is asked before the next message is taken"
        kind = message.WhichOneof("message")
        if (kind == "hello") != (self._watcher is None):
            raise refusal.protocol("the first message is a hello, and no other one is")
        if kind == "acknowledge":
            self._flood.acknowledgement()
            if self._acknowledge(message.acknowledge.applied) and not self._ledger.draining:
                self._grant_asked()
            return
        if kind == "usage":
            self._report(message.usage)
            return
        self._flood.message()
        match kind:
            case "hello":
                self._hello(message.hello)
            case "renew":
                self._renew(message.renew)
            case "release":
                self._asked = None
                self._grants.clear()
                self._ledger.release(self.watcher)
            case _:
                raise refusal.protocol("a message without content")

    def _hello(self, hello: pb.Hello) -> None:
        asked_seconds = lease_asked_seconds(hello)
        if self._ledger.draining:
            raise refusal.draining()
        if not self._ledger.granting:
            raise refusal.lease_missing()
        # Whoever learned another's key could release its lease: a key belongs to the subject that used it first.
        if self._ledger.subject_of(hello.verifier_key) not in (None, self._caller.subject):
            raise refusal.protocol("verifier_key belongs to another caller")
        self._lease_seconds = min(asked_seconds, self._ledger.lease_seconds_max)
        self._flood.renews(every_seconds=max(RENEW_EVERY_SECONDS_MIN, self._lease_seconds / RENEWALS_PER_LEASE))
        self._resume = checked(hello.resume_from) if hello.HasField("resume_from") else None
        self._watcher = Watcher(
            hello.verifier_key, hello.name, hello.instance, hello.library, self._caller.address, self._caller.subject
        )
        self._begin()

    def _begin(self) -> None:
        """Attaches and welcomes, unless the verifier is ahead of what is known here."""
        log, epoch = self._ledger.log, self._ledger.epoch
        if log is None or epoch is None or not self._ledger.granting:
            raise refusal.lease_missing()
        resume = self._resume if self._resume is not None and self._resume.epoch == epoch.bytes else None
        if resume is not None and resume.number > log.number:
            self.waits_for_number = resume.number
            return
        self._epoch = epoch
        number = self._known_at_start = log.number
        if resume is not None:
            self._told_max = resume.number
            if log.holds(Place(resume.number)):
                number = resume.number
                self._place = Place(number)
        self._welcome = pb.WatchResponse(
            welcome=pb.Welcome(
                lease=_duration(self._lease_seconds),
                renew_every=_duration(self._flood.renew_every_seconds),
                position=_position(epoch, number),
                usage_every=None if self._reports is None else _duration(self._reports.every_seconds),
            )
        )
        self._ledger.attach(self)
        if resume is not None:
            self._acknowledged(resume.number)
        self.wake()

    def _renew(self, renew: pb.Renew) -> None:
        """What it applied; then, with nothing in between, the record and the position it is granted at."""
        self._flood.nonce(renew.nonce)
        if not self._acknowledge(renew.applied) or self._ledger.draining:
            return
        if self._lags(self._clock.boottime()) or len(self._grants) >= GRANTS_WAITING_MAX:
            raise refusal.lagging()
        self._asked = renew.nonce
        self._grant_asked()

    def _report(self, report: pb.UsageReport) -> None:
        """What the verifier admitted from memory. It neither owes it nor is it owed anything for it."""
        if self._reports is None:
            raise refusal.protocol("usage was not asked for")
        try:
            self._flood.report()
            admitted, refused = uses_of(report, self._caller.subject)
        except WatchRefusedError:
            self._reports.count("refused")
            raise
        self._reports.count("received")
        self._reports.take(admitted, refused)

    def _grant_asked(self) -> None:
        """Grants the latest lease asked for, once all that was known when the stream began is acknowledged. Who comes
        again, under this key or a new one, would else hold up a position for as long as it likes
        (test_coming_again_holds_nothing_up_for_longer)."""
        if self._asked is None or self.acked < self._known_at_start:
            return
        nonce, self._asked = self._asked, None
        lease_seconds = self._ledger.grantable_seconds(self._lease_seconds)
        if lease_seconds <= 0 or self._ledger.number is None:
            raise refusal.lease_missing()
        if not self._ledger.grant(self.watcher, lease_seconds, self.acked):
            raise refusal.limited()
        self._grants.append(_Granted(nonce, self._ledger.number, lease_seconds))

    def _acknowledge(self, applied: token_service_pb2.Position) -> bool:
        """False for a position of another epoch than the stream's: it was sent before the reset arrived."""
        checked(applied)
        epoch = self._ledger.epoch
        if epoch is None or applied.epoch != epoch.bytes or self._epoch != epoch:
            return False
        if applied.number > self._told_max:
            raise refusal.protocol("applied lies ahead of what was sent")
        self._acknowledged(applied.number)
        return True

    def _acknowledged(self, number: int) -> None:
        log = self._ledger.log
        if number <= self.acked or log is None:
            return
        self.acked = number
        self._ledger.acknowledge(self.watcher, number)
        if number >= log.number:
            self._behind_since = None
        elif self._behind_since is not None:
            self._behind_since = max(self._behind_since, log.learned_at(number + 1))

    def _lags(self, now: float) -> bool:
        """Whether it has not acknowledged a position that has been known for the acknowledgement timeout."""
        return self._behind_since is not None and now - self._behind_since >= self._ack_timeout_seconds

    def _next(self) -> pb.WatchResponse | None:
        if self._welcome is not None:
            welcome, self._welcome = self._welcome, None
            return welcome
        log, epoch = self._ledger.log, self._ledger.epoch
        if self._watcher is None or self.waits_for_number is not None or log is None or epoch is None:
            return None
        if self._epoch != epoch or self._place is None or not log.holds(self._place):
            return self._reset(epoch, log.number)
        if self._ledger.draining and not self._moved:
            self._moved = True
            return pb.WatchResponse(move=pb.Move())
        up_to = self._grants[0].number if self._grants else log.number
        if self._place.number < up_to:
            response, self._place = log.message(self._place, up_to)
            self._told_max = max(self._told_max, self._place.number)
            return response
        return self._grant(epoch) if self._grants else None

    def _reset(self, epoch: UUID, number: int) -> pb.WatchResponse:
        if self._epoch != epoch:  # Grants and acknowledgements of the old epoch mean nothing in this one.
            self._epoch = epoch
            self._asked = None
            self._grants.clear()
            self._known_at_start = number
            self._told_max = self.acked = -1
            self._behind_since = self._clock.boottime()
        self._place = Place(number)
        self._told_max = max(self._told_max, number)
        return pb.WatchResponse(reset=pb.Reset(position=_position(epoch, number)))

    def _grant(self, epoch: UUID) -> pb.WatchResponse:
        granted = self._grants.popleft()
        return pb.WatchResponse(
            grant=pb.LeaseGrant(
                nonce=granted.nonce,
                position=_position(epoch, granted.number),
                lease=_duration(granted.lease_seconds),
            )
        )


def _position(epoch: UUID, number: int) -> token_service_pb2.Position:
    return token_service_pb2.Position(epoch=epoch.bytes, number=number)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1_000) * 1_000_000)
    return duration
