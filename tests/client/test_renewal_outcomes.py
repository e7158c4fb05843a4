"""What follows from each outcome of an attempt to renew a token, by a clock of the test's."""

from __future__ import annotations

import logging

import pytest

from tests.client.renewals import DAY, GRACE, LIFE, START, Bench, made_id, rotated
from watchword.credentials import renewal_times as times
from watchword.credentials.place import Attempt, HandedToken
from watchword.credentials.renewal import Renewal
from watchword.token import format_token_id
from watchword.v1 import token_service_pb2 as pb


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


@pytest.mark.parametrize("grace", [0, -1, float("nan")])
def test_without_grace_calls_under_way_would_fail(grace: float) -> None:
    with pytest.raises(ValueError, match="grace_seconds"):
        Renewal(grace_seconds=grace)


@pytest.mark.parametrize("ttl", [0, 0.5, float("nan")])
def test_a_life_is_at_least_a_second(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl_seconds"):
        Renewal(ttl_seconds=ttl)


def test_attempts_are_numbered_upwards_by_the_time_also_where_the_clock_is_set_back() -> None:
    place = HandedToken("wwt_first", lambda secret: None)
    first, *more = [place.prepare("id", int(now * 1000)) for now in (START, START + 1.5, START - 3_600)]
    assert more == [Attempt(first.request_id, first.number + 1_500), Attempt(first.request_id, first.number + 1_501)]
    other = place.prepare("other", 1)
    assert other.request_id != first.request_id
    assert other.number == 1


def test_a_request_names_the_token_and_asks_for_what_was_set() -> None:
    bench = Bench(ttl_seconds=1.5, grace_seconds=60)
    bench.sees()
    request = bench.renewal.request(Attempt("once", 7))
    assert (request.token_id, request.request_id, request.attempt) == ("", "once", 7), (
        "none is the calling one, and needs no scope"
    )
    assert (request.ttl.ToTimedelta().total_seconds(), request.grace.seconds) == (1.5, 60)
    plain = Bench()
    plain.sees()
    request = plain.renewal.request(Attempt("once", 7))
    assert not request.HasField("ttl")
    assert not request.HasField("grace")
