"""When a token is renewed, and what follows from each outcome, with a clock and with chance that a test decides."""

from __future__ import annotations

import logging
import random
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from watchword.credentials import renewal_times as times
from watchword.credentials.renewal import Renewal
from watchword.token import format_token_id, new_token_id
from watchword.v1 import token_service_pb2 as pb

START = 1_700_000_000.0
DAY = 86_400.0
LIFE = 10 * DAY
GRACE = 3_600.0


class Bench:
    """A renewal, with time and chance. `share` is where in a range chance falls: 0 at its beginning, 1 at its end."""

    def __init__(self, *, ttl_seconds: float | None = None, grace_seconds: float | None = None) -> None:
        self.now = START
        self.share = 0.5
        self.renewal = Renewal(
            ttl_seconds=ttl_seconds,
            grace_seconds=grace_seconds,
            clock=lambda: self.now,
            uniform=lambda low, high: low + (high - low) * self.share,
        )

    def sees(self, ends_in: float = LIFE) -> UUID:
        """A token that ends so long from now, by its id."""
        token_id = made_id(self.now + ends_in)
        self.renewal.sees(token_id)
        return token_id

    def told(self, token_id: UUID, age: float = 0.0, life: float = LIFE, **fields: object) -> None:
        """The service's answer about it."""
        self.renewal.told(message(token_id, self.now - age, life, **fields))

    def renews(self, life: float = LIFE, grace: float = GRACE, **fields: object) -> UUID:
        """The service's answer to a rotation, sent now; the new token."""
        token_id = made_id(self.now + life)
        response = rotated(token_id, self.now, life, grace, **fields)
        self.renewal.rotated(response, self.now)
        self.renewal.renewed(response, self.now)
        return token_id

    def is_due(self) -> bool:
        return self.renewal.is_renewing_due(is_unfinished=False)

    def due_after(self, seconds: float) -> bool:
        """Whether it is due at that time from now; the clock stays where it is."""
        self.now += seconds
        try:
            return self.is_due()
        finally:
            self.now -= seconds


def made_id(ends_at: float) -> UUID:
    return new_token_id(int(ends_at * 1000))


def timestamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


def message(token_id: UUID, created_at: float, life: float, **fields: object) -> pb.Token:
    return pb.Token(
        token_id=format_token_id(token_id),
        created_at=timestamp(created_at),
        expires_at=timestamp(created_at + life),
        **fields,  # type: ignore[arg-type]
    )


def rotated(token_id: UUID, at: float, life: float, grace: float, **fields: object) -> pb.RotateResponse:
    return pb.RotateResponse(
        secret="the new one",
        token=message(token_id, at, life, **fields),
        rotated=pb.Token(expires_at=timestamp(at + grace)),
    )


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
    assert bench.renewal.request("once").token_id == bench.renewal.token_id, "it must not be the one that is rotated"


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


def test_once_a_rotation_was_asked_for_attempts_hurry_as_if_it_had_been_made() -> None:
    bench = Bench(grace_seconds=20)
    bench.told(bench.sees())
    bench.now += 8 * DAY
    bench.share = 1.0
    for _ in range(10):
        bench.renewal.failed("UNAVAILABLE")
    assert not bench.due_after(59)
    bench.now += 61
    bench.renewal.request("once")
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


# Refusals and ends


@pytest.mark.parametrize(
    ("remaining", "low", "high"), [(LIFE, 300, 600), (3_000.0, 150, 300), (10.0, 0.5, 1.0), (-1.0, 300, 600)]
)
def test_after_a_refusal_it_is_tried_rarely(remaining: float, low: float, high: float) -> None:
    assert times.refused_seconds(remaining, lambda low, high: low) == low
    assert times.refused_seconds(remaining, lambda low, high: high) == high


def test_a_refusal_is_said_once_and_shows_in_the_status(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.now += 8 * DAY
    for _ in range(3):
        bench.renewal.refused("SUBJECT_BLOCKED")
        bench.now += 601
    status = bench.renewal.status()
    assert (status.is_renewing, status.renews_at, status.last_error) == (False, None, "SUBJECT_BLOCKED")
    assert status.reason == "its subject or owner is blocked"
    assert bench.is_due(), "now and then it is tried all the same"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    bench.renews()
    assert bench.renewal.status().is_renewing


def test_an_outage_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.told(bench.sees())
    for _ in range(3):
        bench.renewal.failed("UNAVAILABLE")
    assert bench.renewal.status().is_renewing
    bench.told(made_id(START))
    bench.renews()
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(texts) == 2
    assert "cannot be renewed now: UNAVAILABLE" in texts[0]
    assert "can be renewed again" in texts[1]


def test_a_token_that_somebody_else_rotated_is_left_to_its_end_and_both_ids_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    token_id = bench.sees()
    bench.told(token_id)
    bench.now += 8 * DAY
    successor = format_token_id(made_id(START))
    for _ in range(2):
        bench.renewal.taken(successor)
    assert not bench.due_after(DAY)
    assert not bench.renewal.is_renewing_due(is_unfinished=True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert format_token_id(token_id) in record.getMessage()
    assert successor in record.getMessage()
    status = bench.renewal.status()
    assert (status.is_renewing, status.last_error) == (False, "TOKEN_ROTATED")


def test_a_token_that_has_a_successor_already_is_looked_into_at_once() -> None:
    bench = Bench()
    bench.told(bench.sees(), successor_id=format_token_id(made_id(START)))
    assert bench.is_due()


def test_a_session_is_not_renewed() -> None:
    bench = Bench()
    bench.told(bench.sees(), kind=pb.TOKEN_KIND_SESSION)
    assert not bench.due_after(LIFE - 1)
    status = bench.renewal.status()
    assert (status.is_renewing, status.last_error) == (False, "SESSION")
    assert status.ends_at is not None


@pytest.mark.parametrize(("life", "goes_on"), [(0.3 * LIFE, True), (0.1 * LIFE, True), (0.0999 * LIFE, False)])
def test_renewing_stops_where_it_moves_the_end_no_more(life: float, goes_on: bool) -> None:
    # A tied token's successors end with what it is tied to: each lives for a part of what the last one did.
    bench = Bench()
    bench.told(bench.sees())
    bench.renews(life)
    assert bench.renewal.status().is_renewing is goes_on
    assert bench.due_after(life * 0.75) is goes_on


@pytest.mark.parametrize(("ttl", "life"), [(DAY, DAY), (100 * LIFE, LIFE)])
def test_a_shorter_life_that_was_asked_for_is_no_end(ttl: float, life: float) -> None:
    bench = Bench(ttl_seconds=ttl)
    bench.told(bench.sees(100 * DAY), life=100 * DAY if ttl == DAY else LIFE)
    bench.renews(life)
    assert bench.renewal.status().is_renewing


def test_a_file_that_cannot_be_read_is_said_once_and_forgotten_when_it_can(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    token_id = bench.sees()
    bench.told(token_id)
    for _ in range(2):
        bench.renewal.unreadable("the token file is empty")
    assert bench.renewal.status().reason == "the token file is empty"
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    bench.renewal.sees(token_id)
    assert bench.renewal.status().last_error is None


# Keeping


def test_a_token_that_could_not_be_kept_is_tried_to_be_kept_after_a_wait() -> None:
    bench = Bench()
    bench.told(bench.sees())
    bench.now += 8 * DAY
    answer = rotated(made_id(bench.now + LIFE), bench.now, LIFE, GRACE)
    assert bench.renewal.rotated(answer, bench.now) == pytest.approx(bench.now + GRACE)
    assert not bench.renewal.is_saving_due()
    bench.share = 1.0
    bench.renewal.unsaved(answer.token.token_id, "No space left on device")
    status = bench.renewal.status()
    assert (status.is_unsaved, status.last_error) == (True, "No space left on device")
    assert not bench.renewal.is_saving_due()
    bench.now += times.RETRY_SECONDS_MIN + 0.001
    assert bench.renewal.is_saving_due()
    bench.renewal.renewed(answer, bench.now)
    assert not bench.renewal.status().is_unsaved


# Waiting


@pytest.mark.parametrize(
    ("remaining", "grace", "seconds"),
    [(LIFE, 3_600.0, 10.0), (40.0, 3_600.0, 2.0), (LIFE, 5.0, 0.5), (-1.0, 3_600.0, 10.0)],
)
def test_it_is_looked_often_enough_to_find_what_others_left(remaining: float, grace: float, seconds: float) -> None:
    assert times.look_seconds(remaining, grace) == pytest.approx(seconds)


def test_waiting_ends_when_something_is_due() -> None:
    bench = Bench()
    token_id = bench.sees(100.0)
    assert bench.renewal.wait_seconds() == times.LOOK_SECONDS_MIN, "the service is to be asked"
    bench.told(token_id, life=100.0)
    assert bench.renewal.wait_seconds() == pytest.approx(5.0)
    bench.now += 67
    assert bench.renewal.wait_seconds() == pytest.approx(33 / 20)
    bench.now += 2
    assert bench.renewal.wait_seconds() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("remaining", "seconds"), [(LIFE, 10.0), (20.0, 5.0), (0.0, 1.0), (-5.0, 1.0)])
def test_a_call_takes_no_more_than_a_part_of_what_is_left(remaining: float, seconds: float) -> None:
    assert times.call_seconds_max(remaining) == seconds


@pytest.mark.parametrize("grace", [0, -1, float("nan")])
def test_without_grace_calls_under_way_would_fail(grace: float) -> None:
    with pytest.raises(ValueError, match="grace_seconds"):
        Renewal(grace_seconds=grace)


@pytest.mark.parametrize("ttl", [0, 0.5, float("nan")])
def test_a_life_is_at_least_a_second(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl_seconds"):
        Renewal(ttl_seconds=ttl)


def test_attempts_are_numbered_upwards_by_the_time_also_where_the_clock_is_set_back() -> None:
    bench = Bench()
    bench.sees()
    first = bench.renewal.request("once").attempt
    bench.now += 1.5
    second = bench.renewal.request("once").attempt
    bench.now -= 3_600
    assert (first, second) == (int(START * 1000), int(START * 1000) + 1_500)
    assert bench.renewal.request("once").attempt == second + 1


def test_a_request_names_the_token_and_asks_for_what_was_set() -> None:
    bench = Bench(ttl_seconds=1.5, grace_seconds=60)
    bench.sees()
    request = bench.renewal.request("once")
    assert (request.token_id, request.request_id) == ("", "once"), "none is the calling one, and needs no scope"
    assert (request.ttl.ToTimedelta().total_seconds(), request.grace.seconds) == (1.5, 60)
    plain = Bench()
    plain.sees()
    request = plain.renewal.request("once")
    assert not request.HasField("ttl")
    assert not request.HasField("grace")
