"""Which messages on a Watch stream are refused: those that no verifier sends, and too many of those that it does."""

from __future__ import annotations

import pytest

from tests.clocks import ManualClock
from tests.replica.test_ledger import member
from tests.replica.test_stream import (
    PROTOCOL,
    RELEASE,
    acknowledge,
    attached,
    hello,
    kinds,
    opened,
    refused,
    renew,
    taken,
)
from watchword.lease import instant
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica.flood import ACKNOWLEDGEMENTS_SPARE, BURST_MAX
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.stream import GRANTS_WAITING_MAX, HELLO_SECONDS_MAX


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(clock: ManualClock) -> Ledger:
    return member(clock)


@pytest.mark.parametrize(
    "first",
    [
        renew(1, 5),
        acknowledge(5),
        RELEASE,
        pb.WatchRequest(),
        hello(key=b"short"),
        hello(name="x" * 256),
        hello(seconds=0),
        hello(seconds=-1),
        hello(resume=token_service_pb2.Position(number=5)),
    ],
    ids=["renew", "acknowledge", "release", "nothing", "key", "name", "no lease", "negative lease", "no epoch"],
)
def test_a_first_message_that_no_verifier_sends_is_refused(
    ledger: Ledger, clock: ManualClock, first: pb.WatchRequest
) -> None:
    assert refused(opened(ledger, clock), first) == PROTOCOL
    assert not ledger.streams


@pytest.mark.parametrize(
    "message",
    [hello(), acknowledge(6), renew(1, 6), pb.WatchRequest(), pb.WatchRequest(renew=pb.Renew(nonce=1))],
    ids=["second hello", "acknowledges the future", "renews from the future", "nothing", "no position"],
)
def test_a_message_that_no_verifier_sends_is_refused(
    ledger: Ledger, clock: ManualClock, message: pb.WatchRequest
) -> None:
    assert refused(attached(ledger, clock), message) == PROTOCOL
    assert ledger.applied() == 5


def test_a_nonce_is_used_once(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    assert refused(stream, renew(1, 5)) == PROTOCOL


def test_a_flood_of_renewals_ends_the_stream(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    for nonce in range(BURST_MAX - 1):  # The hello was one.
        stream.receive(renew(nonce, 5))
        taken(stream)
    assert refused(stream, renew(BURST_MAX, 5)) == ("RESOURCE_EXHAUSTED", "WATCH_FLOODING")


def test_grants_that_nobody_reads_are_bounded(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    for nonce in range(GRANTS_WAITING_MAX):
        stream.receive(renew(nonce, 5))
    assert refused(stream, renew(GRANTS_WAITING_MAX, 5)) == ("ABORTED", "WATCH_LAGGING")


def test_a_flood_of_acknowledgements_ends_the_stream(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    for _ in range(ACKNOWLEDGEMENTS_SPARE + 1):
        stream.receive(acknowledge(5))
    assert refused(stream, acknowledge(5)) == ("RESOURCE_EXHAUSTED", "WATCH_FLOODING")


def test_renewing_in_time_is_no_flood(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    for nonce in range(200):
        clock.advance(10)
        ledger.renewed(instant(clock))
        stream.receive(renew(nonce, 5))
        assert kinds(stream) == ["grant"]


def test_a_stream_without_hello_ends(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    clock.advance(HELLO_SECONDS_MAX - 0.1)
    stream.check()
    clock.advance(0.1)
    with pytest.raises(WatchRefusedError):
        stream.check()
