"""How long a token that renews itself waits, by what is left of it."""

from __future__ import annotations

import random

import pytest

from watchword.credentials import renewal_times as times

DAY = 86_400.0
LIFE = 10 * DAY


def test_waits_are_drawn_from_the_whole_range_so_that_many_clients_spread() -> None:
    draws = [times.retry_seconds(20, DAY, None, random.uniform) for _ in range(2_000)]
    for low in range(0, 60, 10):
        assert 200 < sum(low <= one < low + 10 for one in draws) < 480
    assert max(draws) <= times.RETRY_SECONDS_MAX


@pytest.mark.parametrize(("remaining", "longest"), [(DAY, 60.0), (600.0, 60.0), (100.0, 10.0), (1.0, 1.0), (0.0, 60.0)])
def test_the_less_is_left_the_sooner_it_is_tried_again_and_never_in_a_storm(remaining: float, longest: float) -> None:
    assert times.retry_seconds(30, remaining, None, lambda low, high: high) == pytest.approx(longest)


def test_what_the_service_asks_to_wait_is_waited_but_not_for_ever() -> None:
    assert times.retry_seconds(0, DAY, 30.0, lambda low, high: low) == 30.0
    assert times.retry_seconds(0, DAY, 1e9, lambda low, high: low) == times.REFUSED_SECONDS_MAX


@pytest.mark.parametrize(
    ("remaining", "low", "high"), [(LIFE, 300, 600), (3_000.0, 150, 300), (10.0, 0.5, 1.0), (-1.0, 300, 600)]
)
def test_after_a_refusal_it_is_tried_rarely(remaining: float, low: float, high: float) -> None:
    assert times.refused_seconds(remaining, lambda low, high: low) == low
    assert times.refused_seconds(remaining, lambda low, high: high) == high


@pytest.mark.parametrize(
    ("remaining", "grace", "seconds"),
    [(LIFE, 3_600.0, 10.0), (40.0, 3_600.0, 2.0), (LIFE, 5.0, 0.5), (-1.0, 3_600.0, 10.0)],
)
def test_it_is_looked_often_enough_to_find_what_others_left(remaining: float, grace: float, seconds: float) -> None:
    assert times.look_seconds(remaining, grace) == pytest.approx(seconds)


@pytest.mark.parametrize(("remaining", "seconds"), [(LIFE, 10.0), (20.0, 5.0), (0.0, 1.0), (-5.0, 1.0)])
def test_a_call_takes_no_more_than_a_part_of_what_is_left(remaining: float, seconds: float) -> None:
    assert times.call_seconds_max(remaining) == seconds
