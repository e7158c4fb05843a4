"""What may be said on a Watch stream and what is sent, in which order, by a clock that tests move."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.clocks import ManualClock
from tests.replica.test_ledger import EPOCH, LEASE_SECONDS, OTHER_EPOCH, member, page
from watchword.lease import DRIFT, instant
from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.replica.stream import Caller, WatcherStream

KEY = bytes(range(16))
ACK_TIMEOUT_SECONDS = 5.0


def at(number: int, epoch: UUID = EPOCH) -> token_service_pb2.Position:
    return token_service_pb2.Position(epoch=epoch.bytes, number=number)


def hello(
    *, key: bytes = KEY, resume: token_service_pb2.Position | None = None, seconds: int = 60, name: str = "orders"
) -> pb.WatchRequest:
    message = pb.Hello(verifier_key=key, name=name, resume_from=resume)
    message.lease.FromSeconds(seconds)
    return pb.WatchRequest(hello=message)


def renew(nonce: int, number: int, epoch: UUID = EPOCH) -> pb.WatchRequest:
    return pb.WatchRequest(renew=pb.Renew(nonce=nonce, applied=at(number, epoch)))


def acknowledge(number: int, epoch: UUID = EPOCH) -> pb.WatchRequest:
    return pb.WatchRequest(acknowledge=pb.Acknowledge(applied=at(number, epoch)))


RELEASE = pb.WatchRequest(release=pb.Release())


def opened(ledger: Ledger, clock: ManualClock, *, subject: str = "orders") -> WatcherStream:
    return WatcherStream(
        ledger,
        clock,
        caller=Caller("10.0.0.1:1", subject),
        ready=lambda: None,
        ack_timeout_seconds=ACK_TIMEOUT_SECONDS,
    )


def attached(ledger: Ledger, clock: ManualClock, *, key: bytes = KEY) -> WatcherStream:
    """One that said hello, was reset, and acknowledged that."""
    stream = opened(ledger, clock)
    stream.receive(hello(key=key))
    assert kinds(stream) == ["welcome", "reset"]
    assert ledger.number is not None
    stream.receive(acknowledge(ledger.number))
    return stream


def taken(stream: WatcherStream) -> list[pb.WatchResponse]:
    found = []
    while (response := stream.take()) is not None:
        found.append(response)
    return found


def kinds(stream: WatcherStream) -> list[str]:
    return [str(response.WhichOneof("message")) for response in taken(stream)]


def refused(stream: WatcherStream, message: pb.WatchRequest) -> tuple[str, str]:
    with pytest.raises(WatchRefusedError) as caught:
        stream.receive(message)
    with pytest.raises(WatchRefusedError):
        stream.take()
    return caught.value.status, caught.value.reason


PROTOCOL = ("INVALID_ARGUMENT", "WATCH_PROTOCOL")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(clock: ManualClock) -> Ledger:
    return member(clock)


def test_a_first_hello_is_a_flush(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello(seconds=600))
    welcome, reset = taken(stream)
    assert welcome.welcome.position == at(5)
    assert (welcome.welcome.lease.seconds, welcome.welcome.renew_every.seconds) == (60, 10)
    assert reset.reset.position == at(5)


def test_a_verifier_resumes_where_it_was(ledger: Ledger, clock: ManualClock) -> None:
    ledger.learn(page(8, 6, 7, 8))
    stream = opened(ledger, clock)
    stream.receive(hello(resume=at(6)))
    welcome, changes = taken(stream)
    assert welcome.welcome.position == at(6)
    assert [change.number for change in changes.changes.changes] == [7, 8]


@pytest.mark.parametrize("resume", [at(4), at(9, OTHER_EPOCH)], ids=["below the floor", "another epoch"])
def test_what_cannot_be_resumed_is_reset(
    ledger: Ledger, clock: ManualClock, resume: token_service_pb2.Position
) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello(resume=resume))
    assert kinds(stream) == ["welcome", "reset"]


def test_a_hello_ahead_waits_for_one_look_at_the_feed(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello(resume=at(7)))
    assert (stream.waits_for_number, stream.take()) == (7, None)
    ledger.learn(page(7, 6, 7))
    stream.polled()
    assert (stream.waits_for_number, kinds(stream)) == (None, ["welcome"])


def test_resuming_from_the_future_is_refused(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello(resume=at(8)))
    with pytest.raises(WatchRefusedError, match="ahead") as caught:
        stream.polled()
    assert (caught.value.status, caught.value.reason) == PROTOCOL


def test_a_grant_comes_after_every_change_up_to_its_position(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    ledger.learn(page(7, 6, 7))
    stream.receive(renew(1, 5))
    ledger.learn(page(9, 8, 9))
    first, grant, rest = taken(stream)
    assert [change.number for change in first.changes.changes] == [6, 7]
    assert (grant.grant.nonce, grant.grant.position) == (1, at(7))
    assert grant.grant.lease.seconds >= 59
    assert [change.number for change in rest.changes.changes] == [8, 9]


def test_what_was_sent_is_not_acknowledged(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    ledger.learn(page(6, 6))
    assert kinds(stream) == ["grant", "changes"]
    assert ledger.applied() == 5
    stream.receive(acknowledge(6))
    assert ledger.applied() == 6


def test_a_record_outlives_its_stream(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    granted_at = clock.boottime()
    stream.close()
    ledger.learn(page(6, 6))
    lease_seconds = int(LEASE_SECONDS * (1 - DRIFT) * 1000) / 1000
    clock.advance(lease_seconds * (1 + DRIFT) - 0.01)
    assert (ledger.next_deadline() or 0) == pytest.approx(granted_at + lease_seconds * (1 + DRIFT))
    ledger.renewed(instant(clock))
    assert ledger.applied() == 5
    clock.advance(0.02)
    assert ledger.applied() == 6


def test_a_release_ends_the_record_and_the_grants_on_their_way(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    ledger.learn(page(6, 6))
    stream.receive(RELEASE)
    assert (ledger.applied(), kinds(stream)) == (6, ["changes"])


def test_a_position_of_many_tokens_comes_in_parts(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    ledger.learn(page(6, 6, ids=2_500))
    parts = [change for response in taken(stream) for change in response.changes.changes]
    assert [(len(part.token_ids), part.last) for part in parts] == [(1_000, False), (1_000, False), (500, True)]
    assert len({token_id for part in parts for token_id in part.token_ids}) == 2_500


def test_a_position_counts_only_with_its_last_part(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    ledger.learn(page(6, 6, ids=2_500))
    stream.take()
    assert refused(stream, acknowledge(6)) == PROTOCOL


def test_many_small_positions_share_a_message(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    ledger.learn(page(2_505, *range(6, 2_506)))
    assert [len(response.changes.changes) for response in taken(stream)] == [1_000, 1_000, 500]


def test_one_that_fell_out_of_the_log_is_reset(clock: ManualClock) -> None:
    ledger = member(clock, ids_kept_max=10)
    stream = attached(ledger, clock)
    ledger.learn(page(50, *range(6, 51)))
    (reset,) = taken(stream)
    assert reset.reset.position == at(50)


def test_one_that_does_not_acknowledge_is_refused_renewal(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    ledger.learn(page(6, 6))
    clock.advance(ACK_TIMEOUT_SECONDS - 0.01)
    stream.check()
    stream.receive(renew(2, 5))
    clock.advance(0.02)
    assert refused(stream, renew(3, 5)) == ("ABORTED", "WATCH_LAGGING")


@pytest.mark.parametrize("keys", ["the same key", "new keys"])
def test_coming_again_holds_nothing_up_for_longer(ledger: Ledger, clock: ManualClock, keys: str) -> None:
    first = attached(ledger, clock)
    first.receive(renew(1, 5))
    ledger.learn(page(6, 6))
    first.close()
    for number in range(1, 30):
        clock.advance(ACK_TIMEOUT_SECONDS - 1)
        ledger.renewed(instant(clock))
        again = opened(ledger, clock)
        again.receive(hello(key=KEY if keys == "the same key" else number.to_bytes(16, "big")))
        assert kinds(again) == ["welcome", "reset"]
        again.receive(renew(2, 0))
        assert kinds(again) == []
        again.close()
    assert ledger.applied() == 6


def test_a_stream_is_granted_what_it_asked_for_once_it_caught_up(ledger: Ledger, clock: ManualClock) -> None:
    ledger.learn(page(7, 6, 7))
    stream = opened(ledger, clock)
    stream.receive(hello(resume=at(5)))
    stream.receive(renew(1, 5))
    stream.receive(renew(2, 5))
    assert kinds(stream) == ["welcome", "changes"]
    stream.receive(acknowledge(6))
    assert kinds(stream) == []
    stream.receive(acknowledge(7))
    (grant,) = taken(stream)
    assert (grant.grant.nonce, grant.grant.position) == (2, at(7))
    assert kinds(stream) == []


def test_who_released_is_not_granted_what_it_asked_for_before(ledger: Ledger, clock: ManualClock) -> None:
    stream = opened(ledger, clock)
    stream.receive(hello())
    taken(stream)
    stream.receive(renew(1, 0))
    stream.receive(RELEASE)
    stream.receive(acknowledge(5))
    assert (kinds(stream), ledger.next_deadline()) == ([], None)


def test_one_that_does_not_acknowledge_is_cut_without_a_word_from_it(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    ledger.learn(page(6, 6))
    clock.advance(ACK_TIMEOUT_SECONDS)
    with pytest.raises(WatchRefusedError, match="acknowledged"):
        stream.check()


def test_lag_counts_from_the_oldest_position_not_acknowledged(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    for number in range(6, 20):
        ledger.learn(page(number, number))
        clock.advance(ACK_TIMEOUT_SECONDS / 2)
        taken(stream)
        stream.receive(acknowledge(number - 1))
        stream.check()
    clock.advance(ACK_TIMEOUT_SECONDS / 2)
    with pytest.raises(WatchRefusedError):
        stream.check()


def test_a_verifier_that_comes_again_replaces_its_older_stream(ledger: Ledger, clock: ManualClock) -> None:
    older = attached(ledger, clock)
    older.receive(renew(1, 5))
    newer = opened(ledger, clock)
    newer.receive(hello(resume=at(5)))
    with pytest.raises(WatchRefusedError) as caught:
        older.take()
    assert (caught.value.status, caught.value.reason) == ("ABORTED", "WATCH_REPLACED")
    older.close()
    assert list(ledger.streams) == [newer]
    ledger.learn(page(6, 6))
    assert ledger.applied() == 5, "the record stays"
    with pytest.raises(WatchRefusedError):
        older.receive(RELEASE)
    assert ledger.applied() == 5


def test_nobody_speaks_for_the_verifier_of_another(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    thief = opened(ledger, clock, subject="mallory")
    assert refused(thief, hello(resume=at(5))) == PROTOCOL
    thief.close()
    stream.close()
    assert refused(opened(ledger, clock, subject="mallory"), hello(resume=at(5))) == PROTOCOL


def test_a_new_epoch_resets_the_stream_and_voids_what_was_under_way(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    ledger.lost()
    ledger.joined(uuid4(), OTHER_EPOCH, instant(clock))
    assert stream.take() is None, "where to go on is not known yet"
    ledger.start(page(3, epoch=OTHER_EPOCH))
    (reset,) = taken(stream)
    assert reset.reset.position == at(3, OTHER_EPOCH)
    stream.receive(acknowledge(500))  # In flight as the reset was sent.
    stream.receive(renew(2, 500))
    assert (ledger.applied(), kinds(stream)) == (3, [])
    stream.receive(renew(3, 3, OTHER_EPOCH))
    assert kinds(stream) == ["grant"]


def test_a_replica_without_a_lease_of_its_own_grants_none(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    clock.advance(LEASE_SECONDS)
    assert refused(stream, renew(1, 5)) == ("UNAVAILABLE", "LEASE_MISSING")
    assert refused(opened(ledger, clock), hello()) == ("UNAVAILABLE", "LEASE_MISSING")


def test_a_draining_replica_asks_to_move_and_grants_nothing(ledger: Ledger, clock: ManualClock) -> None:
    stream = attached(ledger, clock)
    stream.receive(renew(1, 5))
    taken(stream)
    ledger.drain()
    assert kinds(stream) == ["move"]
    stream.receive(renew(2, 5))
    assert (kinds(stream), ledger.drained()) == ([], False)
    stream.receive(RELEASE)
    assert ledger.drained()
    assert refused(opened(ledger, clock), hello()) == ("UNAVAILABLE", "DRAINING")
