"""What one replica may count as applied, grant, and leave behind, by a clock that tests move."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.clocks import ManualClock
from watchword.lease import DRIFT, instant
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.records import Watcher
from watchword_server.store.fleet_contract import Change, FeedPage

LEASE_SECONDS = 60.0
EPOCH = UUID(int=1)
OTHER_EPOCH = UUID(int=2)
AT = pytest.approx


def page(
    number: int, *changes: int, epoch: UUID = EPOCH, continues: bool = True, mark: UUID | None = None, ids: int = 1
) -> FeedPage:
    return FeedPage(
        epoch=epoch,
        number=number,
        mark=mark or UUID(int=1000 + number),
        changes=[Change(change, [uuid4() for _ in range(ids)]) for change in changes],
        continues=continues,
        pruned=not continues,
        settled=True,
        longest_lease_seconds=LEASE_SECONDS,
    )


def watcher(number: int = 1, *, subject: str = "orders") -> Watcher:
    return Watcher(number.to_bytes(16, "big"), "orders", "host/1", "watchword", "10.0.0.1:1", subject)


def member(clock: ManualClock, number: int = 5, **limits: int) -> Ledger:
    ledger = Ledger(clock, lease_seconds_max=LEASE_SECONDS, **limits)
    ledger.joined(uuid4(), EPOCH, instant(clock))
    assert ledger.start(page(number))
    return ledger


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_nothing_is_granted_before_a_position_read_after_the_row_is_known(clock: ManualClock) -> None:
    ledger = Ledger(clock, lease_seconds_max=LEASE_SECONDS)
    ledger.joined(uuid4(), EPOCH, instant(clock))
    assert ledger.learn(page(5))
    assert (ledger.grantable_seconds(10), ledger.applied(), ledger.own_lease_live()) == (0.0, None, False)
    assert ledger.start(page(7, 6))
    assert ledger.grantable_seconds(10) == 0.0, "7 stood in the feed, and only 6 is known"
    assert ledger.learn(page(7, 7))
    assert (ledger.grantable_seconds(10), ledger.applied()) == (10.0, 7)


def test_own_lease_counts_from_before_the_query(clock: ManualClock) -> None:
    ledger = Ledger(clock, lease_seconds_max=LEASE_SECONDS)
    sent = instant(clock)
    clock.advance(20)
    ledger.joined(uuid4(), EPOCH, sent)
    ledger.start(page(5))
    clock.advance(LEASE_SECONDS * (1 - DRIFT) - 20 - 0.01)
    assert ledger.own_lease_live()
    clock.advance(0.01)
    assert not ledger.own_lease_live()
    sent = instant(clock)
    clock.advance(59)
    ledger.renewed(sent)
    assert ledger.grantable_seconds(60) == AT(60 * (1 - DRIFT) - 59, abs=0.002)


def test_a_grant_never_outlives_the_replicas_own_lease(clock: ManualClock) -> None:
    ledger = member(clock)
    clock.advance(50)
    assert ledger.grantable_seconds(60) <= LEASE_SECONDS * (1 - DRIFT) - 50
    clock.advance(10)
    assert ledger.grantable_seconds(60) == 0.0


def test_a_paused_machine_grants_nothing(clock: ManualClock) -> None:
    ledger = member(clock)
    clock.pause(1.5)
    assert not ledger.granting


def test_applied_waits_for_every_verifier_with_an_unexpired_lease(clock: ManualClock) -> None:
    ledger = member(clock)
    assert ledger.grant(watcher(1), 10, 5)
    assert ledger.grant(watcher(2), 10, 5)
    ledger.learn(page(7, 6, 7))
    assert ledger.applied() == 5
    ledger.acknowledge(watcher(1), 7)
    assert ledger.applied() == 5
    ledger.acknowledge(watcher(2), 6)
    assert ledger.applied() == 6
    ledger.acknowledge(watcher(2), 5)
    assert ledger.applied() == 6, "what is applied stays applied"
    ledger.release(watcher(2))
    assert ledger.applied() == 7


@pytest.mark.parametrize(("after_end", "applied"), [(-0.01, 5), (0.0, 6), (0.01, 6)])
def test_a_lease_counts_until_it_ran_out_on_the_slowest_clock(
    clock: ManualClock, after_end: float, applied: int
) -> None:
    ledger = member(clock)
    ledger.grant(watcher(), 10, 5)
    ledger.learn(page(6, 6))
    end = clock.boottime() + 10 * (1 + DRIFT)
    assert ledger.next_deadline() == AT(end)
    clock.advance(end - clock.boottime() + after_end)
    assert ledger.applied() == applied


def test_a_renewed_lease_counts_from_its_last_renewal(clock: ManualClock) -> None:
    ledger = member(clock)
    ledger.grant(watcher(), 10, 5)
    clock.advance(8)
    ledger.grant(watcher(), 10, 5)
    ledger.learn(page(6, 6))
    clock.advance(9)
    assert ledger.applied() == 5
    assert ledger.next_deadline() == AT(clock.boottime() - 9 + 10 * (1 + DRIFT))
    clock.advance(1.1)
    assert ledger.applied() == 6


def test_a_shorter_renewal_does_not_shorten_the_record(clock: ManualClock) -> None:
    ledger = member(clock)
    ledger.grant(watcher(), 20, 5)
    ledger.grant(watcher(), 1, 5)
    ledger.learn(page(6, 6))
    clock.advance(19)
    assert ledger.applied() == 5


def test_a_new_record_behind_does_not_pull_applied_back(clock: ManualClock) -> None:
    """Its verifier relies on the lease only with the grant, which comes after every change up to what is known."""
    ledger = member(clock)
    ledger.learn(page(9, 6, 7, 8, 9))
    assert ledger.applied() == 9
    ledger.grant(watcher(), 10, 3)
    assert ledger.applied() == 9
    ledger.learn(page(10, 10))
    assert ledger.applied() == 9


def test_records_survive_a_new_join_in_the_same_epoch(clock: ManualClock) -> None:
    ledger = member(clock)
    ledger.grant(watcher(), 60, 5)
    ledger.lost()
    assert (ledger.own_lease_live(), ledger.grantable_seconds(1), ledger.applied()) == (False, 0.0, None)
    ledger.joined(uuid4(), EPOCH, instant(clock))
    ledger.start(page(6, 6))
    assert (ledger.number, ledger.applied()) == (6, 5)


def test_a_new_epoch_begins_afresh(clock: ManualClock) -> None:
    ledger = member(clock, 500)
    ledger.grant(watcher(), 60, 500)
    assert not ledger.learn(page(3, epoch=OTHER_EPOCH)), "another epoch needs another join"
    ledger.lost()
    ledger.joined(uuid4(), OTHER_EPOCH, instant(clock))
    ledger.start(page(3, epoch=OTHER_EPOCH))
    assert (ledger.number, ledger.applied()) == (3, 3)


def test_a_shorter_history_is_not_learned(clock: ManualClock) -> None:
    ledger = member(clock, 5)
    assert not ledger.learn(page(4, continues=False))
    assert ledger.number == 5


def test_what_was_pruned_is_a_flush(clock: ManualClock) -> None:
    ledger = member(clock, 5)
    assert ledger.learn(page(90, continues=False))
    assert ledger.log is not None
    assert (ledger.number, ledger.log.floor) == (90, 90)


def test_a_gap_between_positions_is_a_flush(clock: ManualClock) -> None:
    ledger = member(clock, 5)
    assert ledger.learn(page(9, 6, 8, 9))
    assert ledger.log is not None
    assert (ledger.number, ledger.log.floor) == (9, 8)


def test_a_page_asked_for_earlier_changes_nothing(clock: ManualClock) -> None:
    ledger = member(clock, 5)
    ledger.learn(page(8, 6, 7, 8))
    mark = ledger.mark
    assert ledger.learn(page(7, 6, 7))
    assert (ledger.number, ledger.mark) == (8, mark)


def test_the_log_is_bounded_and_its_floor_rises(clock: ManualClock) -> None:
    ledger = member(clock, 0, ids_kept_max=100)
    ledger.learn(page(50, *range(1, 51), ids=9))
    assert ledger.log is not None
    assert (ledger.log.number, ledger.log.floor) == (50, 40)


def test_records_are_bounded(clock: ManualClock) -> None:
    ledger = member(clock, records_max=2)
    assert [ledger.grant(watcher(number), 10, 5) for number in (1, 2, 3)] == [True, True, False]
    assert ledger.grant(watcher(1), 10, 5), "who has a record may renew"


def test_one_subject_takes_the_records_of_no_other(clock: ManualClock) -> None:
    ledger = member(clock, records_per_subject_max=2)
    crowd = [ledger.grant(watcher(number, subject="mallory"), 10, 5) for number in (1, 2, 3)]
    assert crowd == [True, True, False]
    assert ledger.grant(watcher(4), 10, 5)
    ledger.release(watcher(1, subject="mallory"))
    assert ledger.grant(watcher(3, subject="mallory"), 10, 5)
    clock.advance(11)
    assert ledger.grant(watcher(5, subject="mallory"), 10, 5), "those that ran out do not count"


def test_a_lease_that_runs_out_while_the_row_is_gone_is_waited_for_no_more(clock: ManualClock) -> None:
    ledger = member(clock)
    ledger.grant(watcher(1), 10, 5)
    ledger.lost()
    clock.advance(11)
    assert ledger.applied() is None
    assert ledger.next_deadline() is None


def test_a_row_stays_until_every_lease_is_released_or_over(clock: ManualClock) -> None:
    ledger = member(clock)
    ledger.grant(watcher(1), 10, 5)
    ledger.grant(watcher(2), 20, 5)
    assert not ledger.drained()
    ledger.drain()
    assert (ledger.drained(), ledger.grantable_seconds(10)) == (False, 0.0)
    assert ledger.own_lease_live(), "it goes on to answer"
    ledger.release(watcher(2))
    assert not ledger.drained()
    clock.advance(10 * (1 + DRIFT) - 0.01)
    assert not ledger.drained()
    clock.advance(0.02)
    assert ledger.drained()


def test_many_verifiers_are_counted_exactly(clock: ManualClock) -> None:
    ledger = member(clock, 0)
    for number in range(1_000):
        ledger.grant(watcher(number), 60, 0)
    for position in (1, 2, 3):
        ledger.learn(page(position, position))
        for number in range(1_000):
            assert ledger.applied() == position - 1
            ledger.acknowledge(watcher(number), position)
        assert ledger.applied() == position
