"""A caller's rate: before, at and after each instant at which it may do something again."""

from __future__ import annotations

import pytest

from tests.clocks import ManualClock
from tests.request.callers import caller
from watchword_server.answer.errors import RateLimitedError
from watchword_server.request.rates import Rates
from watchword_server.rules.tokens import TokenRecord

ONE, OTHER = caller("one"), caller("other")


class Limit:
    """Ten a second, twenty at once, on a clock that stands still."""

    def __init__(self, per_second: float = 10, callers_max: int = 100) -> None:
        self.clock = ManualClock()
        self.refusals = 0
        self.rates = Rates(per_second, callers_max=callers_max, clock=self.clock.boottime, count_refusal=self._count)

    def _count(self) -> None:
        self.refusals += 1

    def spend(self, who: TokenRecord = ONE, count: int = 1) -> float:
        """0 if it may; otherwise after how many seconds."""
        try:
            self.rates.spend(who, count)
        except RateLimitedError as refusal:
            return refusal.retry_seconds
        return 0


def test_twice_a_seconds_worth_may_come_at_once_and_then_one_at_a_time() -> None:
    limit = Limit()
    assert [limit.spend() for _ in range(20)] == [0] * 20
    assert limit.spend() == pytest.approx(0.1)
    limit.clock.boottime_now += 0.0999
    assert limit.spend() == pytest.approx(0.0001)
    limit.clock.boottime_now += 0.0001
    assert limit.spend() == 0
    assert limit.spend() == pytest.approx(0.1)
    limit.clock.boottime_now += 3600
    assert [limit.spend() for _ in range(21)] == [0] * 20 + [pytest.approx(0.1)]
    assert limit.refusals == 4


def test_the_delay_that_is_told_is_the_true_one() -> None:
    limit = Limit()
    assert limit.spend(count=27) == 0
    delay = limit.spend()
    assert delay == pytest.approx(0.8)
    limit.clock.boottime_now += delay - 0.001
    assert limit.spend() > 0
    limit.clock.boottime_now += 0.002
    assert limit.spend() == 0


def test_debt_ends_after_two_bursts_whatever_was_asked() -> None:
    limit = Limit()
    assert limit.spend(count=1_000_000) == 0
    assert limit.spend() == pytest.approx(2.1)


def test_one_callers_excess_is_nobody_elses() -> None:
    limit = Limit()
    limit.spend(count=20)
    assert limit.spend(ONE) > 0
    assert limit.spend(OTHER) == 0
    # The subject counts, not the token: a rotation, or many tokens, are no way around it.
    assert limit.spend(caller("one")) > 0


def test_a_limited_token_is_known_until_its_caller_may_again() -> None:
    limit = Limit()
    limit.spend(count=19)
    assert not limit.rates.limited
    limit.spend()
    assert limit.rates.limited == {ONE.token_id: ONE}
    limit.clock.boottime_now += 0.0999
    with pytest.raises(RateLimitedError) as caught:
        limit.rates.check(ONE)
    assert caught.value.retry_seconds == pytest.approx(0.0001)
    limit.clock.boottime_now += 0.0001
    limit.rates.check(ONE)
    assert not limit.rates.limited
    # To look is free.
    assert limit.spend() == 0


def test_no_limit_is_no_limit() -> None:
    limit = Limit(0)
    assert [limit.spend(count=1_000_000) for _ in range(3)] == [0] * 3
    assert not limit.rates.limited


def test_callers_are_bounded_and_the_one_of_longest_ago_is_forgotten() -> None:
    limit = Limit(callers_max=3)
    callers = [caller(f"caller{at}") for at in range(4)]
    for one in callers:
        limit.spend(one, 20)
    assert list(limit.rates.limited) == [one.token_id for one in callers[1:]]
    assert limit.spend(callers[1]) > 0
    assert limit.spend(callers[0]) == 0
