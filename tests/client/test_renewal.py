"""When a token is renewed, and when it is tried again, by a clock of the test's."""

from __future__ import annotations

import pytest

from tests.client.renewals import DAY, GRACE, LIFE, START, Bench, made_id, rotated
from watchword.credentials import renewal_times as times
from watchword.credentials.place import Attempt


@pytest.mark.parametrize(("share", "at"), [(0.0, 0.6), (0.5, 0.7), (1.0, 0.8)])
def test_a_token_is_renewed_at_a_random_point_of_60_to_80_percent_of_its_life(share: float, at: float) -> None:
    bench = Bench()
    bench.share = share
    bench.told(bench.sees())
    assert not bench.due_after(LIFE * at - 1)
    assert bench.due_after(LIFE * at)
    assert bench.due_after(LIFE * at + 1)


def test_a_token_that_the_channel_does_not_bear_has_the_life_that_its_id_leaves() -> None:
    bench = Bench()
    bench.sees(LIFE)
    assert bench.renewal.is_asking_due()
    bench.told(made_id(START))
    assert not bench.due_after(LIFE * 0.7 - 1)
    assert bench.due_after(LIFE * 0.7 + 1)


def test_what_the_service_says_of_a_tokens_life_counts_more_than_its_id() -> None:
    bench = Bench()
    token_id = bench.sees(LIFE)
    bench.told(token_id, age=DAY, life=5 * DAY)
    assert not bench.renewal.is_asking_due()
    assert not bench.due_after(2.5 * DAY - 1)
    assert bench.due_after(2.5 * DAY + 1)


def test_a_process_that_begins_often_renews_at_the_same_point_as_one_that_runs() -> None:
    token_id = made_id(START + LIFE)
    for age in (0.0, 3 * DAY, 6 * DAY):
        bench = Bench()
        bench.now += age
        bench.renewal.sees(token_id)
        bench.told(token_id, age=age)
        assert not bench.due_after(7 * DAY - age - 1)
        assert bench.due_after(7 * DAY - age + 1)


@pytest.mark.parametrize(("left", "spread"), [(LIFE * 0.1, times.OVERDUE_SECONDS_MAX), (100.0, 10.0), (0.0, 0.0)])
def test_tokens_that_are_overdue_are_renewed_soon_and_not_at_once(left: float, spread: float) -> None:
    bench = Bench()
    bench.share = 1.0
    token_id = bench.sees(left)
    bench.told(token_id, age=LIFE - left)
    assert bench.due_after(spread + 0.001)
    if spread:
        assert not bench.due_after(spread - 0.001)


def test_a_new_tokens_life_counts_from_before_it_was_asked_for_whatever_the_clocks_say() -> None:
    bench = Bench()
    bench.told(bench.sees())
    sent_at = bench.now = START + 7 * DAY
    bench.now += 30
    # The service's clock is two hours ahead.
    answer = rotated(made_id(sent_at + 7_200 + DAY), sent_at + 7_200, DAY, GRACE)
    assert bench.renewal.rotated(answer, sent_at) == pytest.approx(sent_at + GRACE)
    bench.renewal.renewed(answer, sent_at)
    assert bench.renewal.ends_at == pytest.approx(sent_at + DAY)
    assert not bench.due_after(0.7 * DAY - 30 - 1)
    assert bench.due_after(0.7 * DAY - 30 + 1)


def test_another_token_in_the_place_begins_a_new_plan() -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.now += 8 * DAY
    assert bench.is_due()
    bench.renewal.refused("SUBJECT_BLOCKED")
    bench.sees(LIFE)
    status = bench.renewal.status()
    assert (status.is_renewing, status.last_error) == (True, None)
    assert not bench.is_due()
    assert bench.renewal.is_asking_due()


def test_the_same_token_seen_again_changes_nothing() -> None:
    bench = Bench()
    token_id = bench.sees()
    bench.told(token_id)
    bench.renewal.refused("SUBJECT_BLOCKED")
    before = bench.renewal.status()
    bench.renewal.sees(token_id)
    assert bench.renewal.status() == before


def test_what_is_said_of_another_token_is_not_believed() -> None:
    bench = Bench()
    bench.sees(LIFE)
    bench.told(made_id(START + DAY), life=DAY)
    assert not bench.renewal.is_asking_due()
    assert bench.renewal.ends_at == pytest.approx(START + LIFE)
    assert bench.renewal.request(Attempt("once", 7)).token_id == bench.renewal.token_id, (
        "it must not be the one that is rotated"
    )


# Failures


def test_after_a_failure_nothing_is_tried_until_the_wait_is_over() -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.now += 8 * DAY
    bench.share = 1.0
    bench.renewal.failed("UNAVAILABLE")
    assert not bench.is_due()
    assert not bench.renewal.is_renewing_due(is_unfinished=True)
    assert not bench.due_after(times.RETRY_SECONDS_MIN - 0.001)
    assert bench.due_after(times.RETRY_SECONDS_MIN + 0.001)


def test_waits_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.share = 1.0
    waits = []
    for _ in range(12):
        bench.renewal.failed("UNAVAILABLE")
        waits.append(bench.renewal.wait_seconds())
        bench.now += 61
    assert waits[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    # They are cut into looks, since others may have done it.
    assert max(waits) == pytest.approx(times.LOOK_SECONDS_MAX)
    bench.renews()
    bench.renewal.failed("UNAVAILABLE")
    assert bench.renewal.wait_seconds() == pytest.approx(0.2)


def test_once_a_rotation_was_asked_for_attempts_hurry_as_if_it_had_been_made() -> None:
    bench = Bench(grace_seconds=20)
    bench.told(bench.sees())
    bench.now += 8 * DAY
    bench.share = 1.0
    for _ in range(10):
        bench.renewal.failed("UNAVAILABLE")
    assert not bench.due_after(59)
    bench.now += 61
    bench.renewal.request(Attempt("once", 7))
    bench.renewal.failed("DEADLINE_EXCEEDED")
    assert bench.due_after(2.1)
    bench.now += 21
    bench.renewal.failed("DEADLINE_EXCEEDED")
    assert not bench.due_after(59), "it has not ended, so it was not rotated"


def test_a_clock_that_is_set_back_does_not_make_a_short_wait_a_long_one() -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.now += 9 * DAY
    bench.renewal.failed("UNAVAILABLE")
    assert not bench.is_due()
    bench.now -= 3_600
    assert bench.is_due()


def test_what_was_planned_by_a_clock_that_is_set_back_is_asked_for_again() -> None:
    """A machine that came up a year ahead, renewed a token at once, and was then put right."""
    bench = Bench()
    bench.now += 365 * DAY
    bench.told(bench.sees())
    token_id = bench.renews(DAY)
    bench.renewal.sees(token_id)
    bench.now -= 0.5
    bench.renewal.sees(token_id)
    assert not bench.renewal.is_asking_due()
    bench.now -= 365 * DAY
    bench.renewal.sees(token_id)
    assert bench.renewal.is_asking_due()
    bench.told(token_id, life=DAY)
    assert not bench.due_after(0.7 * DAY - 1)
    assert bench.due_after(0.7 * DAY + 1)
    bench.renewal.sees(token_id)
    assert not bench.renewal.is_asking_due()


def test_nothing_is_rotated_before_it_is_known_which_token_the_channel_bears() -> None:
    bench = Bench()
    token_id = bench.sees()
    bench.now += 9 * DAY
    assert not bench.renewal.is_renewing_due(is_unfinished=True)
    bench.told(token_id, age=9 * DAY)
    bench.now += times.OVERDUE_SECONDS_MAX
    assert bench.is_due()


def test_a_rotation_that_somebody_left_unfinished_is_due_at_once() -> None:
    bench = Bench()
    bench.told(bench.sees())
    assert not bench.renewal.is_renewing_due(is_unfinished=False)
    assert bench.renewal.is_renewing_due(is_unfinished=True)
