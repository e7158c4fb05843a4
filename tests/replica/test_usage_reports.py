"""What verifiers report on their streams is bounded, and a flood of it ends their own stream alone."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.clocks import ManualClock
from tests.replica.test_ledger import member
from tests.replica.test_stream import PROTOCOL, acknowledge, hello, kinds, opened, refused, renew, taken
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica.flood import REPORTS_BURST_MAX, REPORTS_PER_INTERVAL_MAX
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.stream import Caller, WatcherStream
from watchword_server.replica.usage import AGO_SECONDS_MAX, COUNT_MAX, SCOPES_MAX, USES_MAX, UsageReports
from watchword_server.store.contract import Use

EVERY_SECONDS = 60.0
TOKEN_ID = UUID(bytes=bytes(range(16)))
FLOODING = ("RESOURCE_EXHAUSTED", "WATCH_FLOODING")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(clock: ManualClock) -> Ledger:
    return member(clock)


class Reported:
    """What a server was told, and how it counted that."""

    def __init__(self) -> None:
        self.admitted: list[Use] = []
        self.refused: list[Use] = []
        self.counted: list[str] = []

    def take(self, admitted: Sequence[Use], refused: Sequence[Use]) -> None:
        self.admitted += admitted
        self.refused += refused

    def stream(self, ledger: Ledger, clock: ManualClock, *, key: bytes = TOKEN_ID.bytes) -> WatcherStream:
        """One that said hello, was reset, and acknowledged that."""
        made = WatcherStream(
            ledger,
            clock,
            caller=Caller("10.0.0.1:1", "orders"),
            ready=lambda: None,
            reports=UsageReports(EVERY_SECONDS, self.take, self.counted.append),
        )
        made.receive(hello(key=key))
        assert kinds(made) == ["welcome", "reset"]
        assert ledger.number is not None
        made.receive(acknowledge(ledger.number))
        return made


@pytest.fixture
def reported() -> Reported:
    return Reported()


def use(
    token_id: bytes = TOKEN_ID.bytes, *, count: int = 1, ago: Duration | None = None, scopes: Sequence[str] = ()
) -> pb.Use:
    return pb.Use(token_id=token_id, use_count=count, ago=ago, scopes=scopes)


def report(*uses: pb.Use) -> pb.WatchRequest:
    return pb.WatchRequest(usage=pb.UsageReport(uses=uses))


def test_a_welcome_asks_for_reports(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    stream = WatcherStream(
        ledger,
        clock,
        caller=Caller("10.0.0.1:1", "orders"),
        ready=lambda: None,
        reports=UsageReports(0.05, reported.take),
    )
    stream.receive(hello())
    assert taken(stream)[0].welcome.usage_every.ToMilliseconds() == 50


def test_where_no_reports_are_asked_for_none_are_taken(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello())
    assert not taken(stream)[0].welcome.HasField("usage_every")
    assert refused(stream, report(use())) == PROTOCOL


def test_a_report_is_no_first_message(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    stream = WatcherStream(
        ledger,
        clock,
        caller=Caller("10.0.0.1:1", "orders"),
        ready=lambda: None,
        reports=UsageReports(EVERY_SECONDS, reported.take),
    )
    assert refused(stream, report(use())) == PROTOCOL
    assert reported.admitted == []


def test_uses_are_those_of_the_callers_own_service(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    told = pb.Use(
        token_id=TOKEN_ID.bytes,
        use_count=7,
        ago=Duration(seconds=2, nanos=500_000_000),
        address="192.0.2.1",
        scopes=["orders.read"],
        refused_count=3,
        refused_address="198.51.100.1",
    )
    reported.stream(ledger, clock).receive(report(told))
    assert reported.admitted == [Use(TOKEN_ID, "orders", 7, 2.5, "192.0.2.1", ["orders.read"])]
    assert reported.refused == [Use(TOKEN_ID, "orders", 3, 2.5, "198.51.100.1", ())]
    assert reported.counted == ["received"]


def test_what_no_database_could_hold_is_cut(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    told = pb.Use(token_id=TOKEN_ID.bytes, use_count=2**64 - 1, ago=Duration(seconds=2**62), address="1" * 1_000)
    reported.stream(ledger, clock).receive(report(told))
    assert reported.admitted == [Use(TOKEN_ID, "orders", COUNT_MAX, AGO_SECONDS_MAX, "", [])]


@pytest.mark.parametrize(
    "message",
    [
        report(use(b"short")),
        report(use(b"x" * 17)),
        report(use(ago=Duration(seconds=-1))),
        report(use(ago=Duration(nanos=-1))),
        report(use(scopes=["orders.*"])),
        report(use(scopes=["a\x00b"])),
        report(use(scopes=["x" * 129])),
        report(use(scopes=[f"orders.s{number}" for number in range(SCOPES_MAX + 1)])),
        report(*(use() for _ in range(USES_MAX + 1))),
    ],
    ids=[
        "short id",
        "long id",
        "negative seconds",
        "negative nanos",
        "wildcard",
        "no scope",
        "long scope",
        "many scopes",
        "many uses",
    ],
)
def test_a_report_that_no_verifier_sends_ends_the_stream(
    ledger: Ledger, clock: ManualClock, reported: Reported, message: pb.WatchRequest
) -> None:
    assert refused(reported.stream(ledger, clock), message) == PROTOCOL
    assert (reported.admitted, reported.counted) == ([], ["refused"])


def test_the_largest_report_there_may_be_is_taken(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    scopes = [f"orders.s{number}" for number in range(SCOPES_MAX)]
    reported.stream(ledger, clock).receive(report(*(use(uuid4().bytes, scopes=scopes) for _ in range(USES_MAX))))
    assert len(reported.admitted) == USES_MAX


def test_reports_at_the_rate_asked_for_are_never_a_flood(
    ledger: Ledger, clock: ManualClock, reported: Reported
) -> None:
    stream = reported.stream(ledger, clock)
    for number in range(1, 20):
        # The network brings the reports of one interval late, with those of the next.
        if number % 2:
            for _ in range(2 * REPORTS_PER_INTERVAL_MAX):
                stream.receive(report(use()))
        clock.advance(EVERY_SECONDS)
    assert reported.counted == ["received"] * 2 * REPORTS_PER_INTERVAL_MAX * 10


def test_a_flood_of_reports_ends_its_stream_and_no_other(
    ledger: Ledger, clock: ManualClock, reported: Reported
) -> None:
    flooding, other = reported.stream(ledger, clock), reported.stream(ledger, clock, key=b"another verifier")
    for _ in range(REPORTS_BURST_MAX):
        flooding.receive(report(use()))
    assert refused(flooding, report(use())) == FLOODING
    assert reported.counted == ["received"] * REPORTS_BURST_MAX + ["refused"]
    flooding.close()
    other.receive(report(use()))
    other.receive(renew(1, 5))
    assert kinds(other) == ["grant"]


def test_room_for_reports_comes_back_with_time(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    stream = reported.stream(ledger, clock)
    for _ in range(REPORTS_BURST_MAX):
        stream.receive(report(use()))
    clock.advance(EVERY_SECONDS / REPORTS_PER_INTERVAL_MAX - 0.01)
    early = reported.stream(ledger, clock, key=b"another verifier")
    early.receive(report(use()))
    clock.advance(0.02)
    stream.receive(report(use()))
    with pytest.raises(WatchRefusedError):
        stream.receive(report(use()))


def test_reports_take_nothing_of_the_room_for_renewals(ledger: Ledger, clock: ManualClock, reported: Reported) -> None:
    stream = reported.stream(ledger, clock)
    for nonce in range(1, REPORTS_BURST_MAX + 1):
        stream.receive(report(use()))
        stream.receive(renew(nonce, 5))
    assert kinds(stream) == ["grant"] * REPORTS_BURST_MAX
