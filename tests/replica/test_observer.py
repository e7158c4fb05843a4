"""When a position is applied everywhere, and who counts as gone, by a clock that tests move."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.clocks import ManualClock
from watchword.lease import DRIFT
from watchword_server.replica.observer import Observer, Suspect
from watchword_server.store.contract import Position
from watchword_server.store.fleet_contract import ReplicaRow, Roll

LEASE_SECONDS = 60.0
RUNS_OUT_SECONDS = LEASE_SECONDS * (1 + DRIFT)
EPOCH = UUID(int=1)
OTHER_EPOCH = UUID(int=2)
ONE, TWO = UUID(int=11), UUID(int=12)
AT_SEVEN = Position(EPOCH, 7)


def row(key: UUID, applied: int | None, *, renewals: int = 1, epoch: UUID = EPOCH) -> ReplicaRow:
    return ReplicaRow(key, epoch, "host", applied, renewals, LEASE_SECONDS, False, 0, 0.0)


def roll(*rows: ReplicaRow, settled: bool = True, epoch: UUID = EPOCH) -> Roll:
    return Roll(epoch, 9, settled, LEASE_SECONDS, rows)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def observer(clock: ManualClock) -> Observer:
    return Observer(clock)


def see(observer: Observer, *rows: ReplicaRow) -> list[Suspect]:
    return list(observer.observe(roll(*rows), observer.ticket()))


def test_complete_needs_every_replica(observer: Observer) -> None:
    committed = observer.ticket()
    assert not observer.complete(AT_SEVEN, committed)
    see(observer, row(ONE, 7), row(TWO, 6))
    assert not observer.complete(AT_SEVEN, committed)
    see(observer, row(ONE, 7), row(TWO, None))
    assert not observer.complete(AT_SEVEN, committed)
    see(observer, row(ONE, 7), row(TWO, 7))
    assert observer.complete(AT_SEVEN, committed)
    assert not observer.complete(Position(EPOCH, 8), committed)


def test_a_roll_sent_before_the_commit_says_nothing(observer: Observer) -> None:
    sent = observer.ticket()
    committed = observer.ticket()
    observer.observe(roll(), sent)
    assert not observer.complete(AT_SEVEN, committed)
    observer.observe(roll(), observer.ticket())
    assert observer.complete(AT_SEVEN, committed)


def test_a_roll_overtaken_by_a_later_one_is_ignored(observer: Observer) -> None:
    committed, early, late = observer.ticket(), observer.ticket(), observer.ticket()
    observer.observe(roll(row(ONE, 6)), late)
    observer.observe(roll(row(ONE, 9)), early)
    assert not observer.complete(AT_SEVEN, committed)


def test_a_replica_of_another_epoch_has_applied_nothing(observer: Observer) -> None:
    committed = observer.ticket()
    see(observer, row(ONE, 70, epoch=OTHER_EPOCH))
    assert not observer.complete(AT_SEVEN, committed)


def test_a_position_of_another_epoch_is_never_complete(observer: Observer) -> None:
    committed = observer.ticket()
    see(observer, row(ONE, 70))
    assert not observer.complete(Position(OTHER_EPOCH, 7), committed)


@pytest.mark.parametrize(("after_end", "suspected"), [(-0.01, False), (0.0, True), (0.01, True)])
def test_a_replica_is_suspected_when_its_lease_ran_out_on_the_slowest_clock(
    observer: Observer, clock: ManualClock, after_end: float, suspected: bool
) -> None:
    assert see(observer, row(ONE, 6)) == []
    clock.advance(RUNS_OUT_SECONDS + after_end)
    assert see(observer, row(ONE, 6)) == ([Suspect(ONE, 1)] if suspected else [])


def test_a_lease_counts_from_the_first_reading_of_its_last_renewal(observer: Observer, clock: ManualClock) -> None:
    see(observer, row(ONE, 6, renewals=1))
    clock.advance(RUNS_OUT_SECONDS)
    assert see(observer, row(ONE, 6, renewals=2)) == []
    clock.advance(RUNS_OUT_SECONDS - 0.01)
    assert see(observer, row(ONE, 6, renewals=2)) == []
    clock.advance(0.01)
    assert see(observer, row(ONE, 6, renewals=2)) == [Suspect(ONE, 2)]


def test_a_replica_whose_lease_ran_out_counts_until_the_delete_hit_its_row(
    observer: Observer, clock: ManualClock
) -> None:
    committed = observer.ticket()
    see(observer, row(ONE, 6), row(TWO, 7))
    clock.advance(RUNS_OUT_SECONDS + 100)
    (suspect,) = see(observer, row(ONE, 6), row(TWO, 7, renewals=2))
    assert not observer.complete(AT_SEVEN, committed)
    assert see(observer, row(ONE, 6), row(TWO, 7, renewals=2)) == [suspect], "asked for again until it hit"
    observer.fenced(suspect)
    assert observer.complete(AT_SEVEN, committed)
    assert observer.replicas_count() == 1


def test_a_row_that_is_absent_is_gone(observer: Observer) -> None:
    committed = observer.ticket()
    see(observer, row(ONE, 6), row(TWO, 7))
    see(observer, row(TWO, 7))
    assert observer.complete(AT_SEVEN, committed)


def test_nothing_is_complete_before_a_new_epoch_is_settled(observer: Observer, clock: ManualClock) -> None:
    committed = observer.ticket()
    observer.observe(roll(row(ONE, 7), settled=False), observer.ticket())
    assert not observer.complete(AT_SEVEN, committed)
    assert observer.wants_settle() is None
    clock.advance(RUNS_OUT_SECONDS - 0.01)
    assert observer.wants_settle() is None
    clock.advance(0.01)
    assert observer.wants_settle() == EPOCH
    observer.observe(roll(row(ONE, 7)), observer.ticket())
    assert observer.wants_settle() is None
    assert observer.complete(AT_SEVEN, committed)


def test_an_epoch_settles_from_when_it_was_first_seen(observer: Observer, clock: ManualClock) -> None:
    observer.observe(roll(epoch=OTHER_EPOCH), observer.ticket())
    clock.advance(RUNS_OUT_SECONDS)
    observer.observe(roll(settled=False), observer.ticket())
    assert observer.wants_settle() is None
    clock.advance(RUNS_OUT_SECONDS)
    assert observer.wants_settle() == EPOCH


def test_effective_in_covers_the_lease_the_timeout_and_the_settling(observer: Observer, clock: ManualClock) -> None:
    see(observer, row(ONE, 6))
    bound = RUNS_OUT_SECONDS + 5 + 1
    assert observer.effective_in_seconds(AT_SEVEN) == pytest.approx(bound)
    observer.observe(roll(row(ONE, 6), settled=False, epoch=OTHER_EPOCH), observer.ticket())
    assert observer.effective_in_seconds(Position(OTHER_EPOCH, 7)) >= RUNS_OUT_SECONDS
