"""Leases: relied on before their end, never at or after it, by clocks that differ and machines that are paused."""

from __future__ import annotations

import pytest

from tests.clocks import ManualClock
from watchword.lease import (
    DRIFT,
    PAUSE_SECONDS_MAX,
    Lease,
    SystemClock,
    holder_end,
    instant,
    recorder_end,
)

LEASE_SECONDS = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def renewed(clock: ManualClock) -> Lease:
    lease = Lease()
    lease.renew(instant(clock), LEASE_SECONDS)
    return lease


def test_a_lease_that_was_never_granted_is_not_live(clock: ManualClock) -> None:
    assert not Lease().live(clock)
    assert Lease().remaining_seconds(clock) == 0


@pytest.mark.parametrize(("past_seconds", "live"), [(-0.001, True), (0.0, False), (0.001, False)])
def test_a_lease_is_live_before_its_end_and_not_at_or_after_it(
    clock: ManualClock, past_seconds: float, live: bool
) -> None:
    lease = renewed(clock)
    clock.boottime_now = holder_end(clock.boottime_now, LEASE_SECONDS) + past_seconds
    assert lease.live(clock) is live
    assert (lease.remaining_seconds(clock) > 0) is live


def test_a_lease_counts_from_when_it_was_asked_for(clock: ManualClock) -> None:
    lease, sent = Lease(), instant(clock)
    clock.advance(20)
    lease.renew(sent, LEASE_SECONDS)
    assert lease.remaining_seconds(clock) == pytest.approx(LEASE_SECONDS * (1 - DRIFT) - 20)


def test_a_grant_for_an_older_request_does_not_shorten_a_newer_lease(clock: ManualClock) -> None:
    older = instant(clock)
    clock.advance(10)
    lease = renewed(clock)
    remaining = lease.remaining_seconds(clock)
    lease.renew(older, LEASE_SECONDS)
    assert lease.remaining_seconds(clock) == remaining


def test_a_newer_grant_may_shorten_the_lease(clock: ManualClock) -> None:
    """The replica waits for what it granted last, no longer."""
    lease = renewed(clock)
    clock.advance(1)
    lease.renew(instant(clock), 2.0)
    assert lease.remaining_seconds(clock) == pytest.approx(2.0 * (1 - DRIFT))


def test_a_lapsed_lease_is_over_at_once_and_can_be_renewed(clock: ManualClock) -> None:
    lease = renewed(clock)
    lease.lapse()
    assert not lease.live(clock)
    lease.renew(instant(clock), LEASE_SECONDS)
    assert lease.live(clock)


@pytest.mark.parametrize(("seconds", "live"), [(PAUSE_SECONDS_MAX - 0.01, True), (PAUSE_SECONDS_MAX + 0.01, False)])
def test_a_paused_machine_has_lost_its_lease(clock: ManualClock, seconds: float, live: bool) -> None:
    lease = renewed(clock)
    clock.pause(seconds)
    assert lease.live(clock) is live
    assert (lease.remaining_seconds(clock) > 0) is live


def test_a_lease_lost_to_a_pause_stays_lost_until_renewed(clock: ManualClock) -> None:
    lease = renewed(clock)
    clock.pause(10)
    clock.advance(1)
    assert not lease.live(clock)
    lease.renew(instant(clock), LEASE_SECONDS)
    assert lease.live(clock)


def test_a_wall_clock_set_back_ends_no_lease(clock: ManualClock) -> None:
    lease = renewed(clock)
    clock.pause(-3600)
    assert lease.live(clock)


@pytest.mark.parametrize("drift", [-DRIFT, -DRIFT / 2, 0.0, DRIFT / 2, DRIFT])
def test_the_holder_stops_before_the_recorder_lets_go(drift: float) -> None:
    """For clocks whose rates differ by no more than DRIFT, and a request that took no time at all."""
    holder_rate, recorder_rate = 1 + drift / 2, 1 - drift / 2
    assert holder_end(0.0, LEASE_SECONDS) / holder_rate <= recorder_end(0.0, LEASE_SECONDS) / recorder_rate


def test_the_clocks_of_this_machine_advance() -> None:
    clock = SystemClock()
    before = instant(clock)
    assert clock.boottime() >= before.boottime
    assert clock.realtime() >= before.realtime - PAUSE_SECONDS_MAX


def test_a_lease_by_the_clocks_of_this_machine_is_live() -> None:
    clock, lease = SystemClock(), Lease()
    lease.renew(instant(clock), LEASE_SECONDS)
    assert lease.live(clock)
