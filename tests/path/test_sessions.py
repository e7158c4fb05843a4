"""Session tokens: they end when nobody uses them, and at their hard end in any case."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from tests.path.party import Party, refused, unique
from tests.path.rows import move
from watchword.v1 import token_service_pb2 as pb

MINUTE = timedelta(minutes=1)
SLACK = timedelta(minutes=2)
"""Twice the usage interval: so long may it take until a use is known."""
NOW, LATER, EARLIER = timedelta(), timedelta(hours=1), timedelta(seconds=-1)


def session(
    admin: Party,
    *,
    idle: timedelta = 10 * MINUTE,
    ttl: timedelta = 8 * LATER,
    audiences: tuple[str, ...] = ("admin",),
) -> pb.IssueResponse:
    return admin.make(
        kind=pb.TOKEN_KIND_SESSION,
        audiences=audiences,
        idle_timeout=Duration(seconds=int(idle.total_seconds())),
        ttl=Duration(seconds=int(ttl.total_seconds())),
    )


def reason(admin: Party, token_id: str) -> str:
    explanation = admin.get(pb.GetTokenRequest(token_id=token_id, as_verifier="admin")).explanation
    return pb.VerdictReason.Name(explanation.reason).removeprefix("VERDICT_REASON_")


def test_a_session_is_issued_with_its_idle_end(admin: Party) -> None:
    made = session(admin)
    for token in (made.token, admin.record(made.token.token_id)):
        assert token.kind == pb.TOKEN_KIND_SESSION
        assert token.idle_timeout.ToTimedelta() == 10 * MINUTE
        unused = token.idle_expires_at.ToDatetime() - token.created_at.ToDatetime()
        assert abs(unused - 10 * MINUTE - SLACK) < MINUTE
        assert token.expires_at.ToDatetime() - token.created_at.ToDatetime() > 7 * LATER


def test_tokens_of_other_kinds_have_no_idle_end(admin: Party) -> None:
    token = admin.make().token
    assert token.kind == pb.TOKEN_KIND_SERVICE
    assert not token.HasField("idle_timeout")
    assert not token.HasField("idle_expires_at")


@pytest.mark.parametrize(
    ("column", "left", "verdict", "why", "state"),
    [
        ("idle_expires_at", LATER, "active", "ACTIVE", pb.TOKEN_STATE_LIVE),
        ("idle_expires_at", NOW, "inactive", "IDLE", pb.TOKEN_STATE_EXPIRED),
        ("idle_expires_at", EARLIER, "inactive", "IDLE", pb.TOKEN_STATE_EXPIRED),
        ("expires_at", LATER, "active", "ACTIVE", pb.TOKEN_STATE_LIVE),
        ("expires_at", NOW, "inactive", "EXPIRED", pb.TOKEN_STATE_EXPIRED),
        ("expires_at", EARLIER, "inactive", "EXPIRED", pb.TOKEN_STATE_EXPIRED),
    ],
)
def test_a_session_ends_at_whichever_end_comes_first(
    watchword: Watchword, admin: Party, column: str, left: timedelta, verdict: str, why: str, state: int
) -> None:
    made = session(admin)
    move(watchword.dsn, made.token.token_id, column, left)
    assert admin.verdict(made.secret) == verdict
    assert reason(admin, made.token.token_id) == why
    assert admin.record(made.token.token_id).state == state


def test_what_is_left_of_a_session_is_told_up_to_its_idle_end(watchword: Watchword, admin: Party) -> None:
    made = session(admin)
    move(watchword.dsn, made.token.token_id, "idle_expires_at", 10 * MINUTE)
    left = admin.validate(made.secret).active.remaining.ToTimedelta()
    assert 8 * MINUTE < left <= 10 * MINUTE


def test_a_verifier_asks_about_a_session_again_before_half_of_what_is_left_is_over(
    watchword: Watchword, admin: Party
) -> None:
    """So that a session in use is counted before it would end."""
    made = session(admin)
    move(watchword.dsn, made.token.token_id, "idle_expires_at", 10 * MINUTE)
    answer = admin.validate(made.secret)
    assert answer.cacheable_for.ToTimedelta() <= answer.active.remaining.ToTimedelta() / 2 + timedelta(microseconds=1)
    lacking = admin.validate(made.secret, "some.scope")
    assert lacking.cacheable_for.ToTimedelta() <= 5 * MINUTE


def test_a_session_whose_hard_end_is_near_is_cached_no_longer_than_that(watchword: Watchword, admin: Party) -> None:
    made = session(admin, idle=LATER)
    move(watchword.dsn, made.token.token_id, "expires_at", MINUTE)
    answer = admin.validate(made.secret)
    assert answer.cacheable_for.ToTimedelta() <= answer.active.remaining.ToTimedelta() <= MINUTE


def test_a_session_that_ended_is_no_longer_listed(watchword: Watchword, admin: Party) -> None:
    made = session(admin)
    wanted = pb.ListTokensRequest(subject=made.token.subject)
    assert [token.token_id for token in admin.list_tokens(wanted).tokens] == [made.token.token_id]
    move(watchword.dsn, made.token.token_id, "idle_expires_at", EARLIER)
    assert not admin.list_tokens(wanted).tokens
    wanted.include_inactive = True
    assert [token.state for token in admin.list_tokens(wanted).tokens] == [pb.TOKEN_STATE_EXPIRED]


def test_a_callers_session_that_ended_is_refused(watchword: Watchword, admin: Party) -> None:
    made = session(admin, audiences=("watchword",))
    caller = Party(admin.channel, made.secret)
    assert caller.who_am_i().token_id == made.token.token_id
    move(watchword.dsn, made.token.token_id, "idle_expires_at", EARLIER)
    answer = refused(caller.who_am_i)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def test_a_session_that_ended_is_neither_rotated_nor_narrowed(watchword: Watchword, admin: Party) -> None:
    made = session(admin)
    move(watchword.dsn, made.token.token_id, "idle_expires_at", EARLIER)
    answer = refused(admin.rotate, pb.RotateRequest(token_id=made.token.token_id))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_NOT_LIVE")
    answer = refused(admin.narrow, pb.NarrowRequest(token_id=made.token.token_id, ttl=Duration(seconds=1)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_NOT_LIVE")


def test_a_sessions_successor_has_the_same_hard_end_and_an_idle_end_of_its_own(
    watchword: Watchword, admin: Party
) -> None:
    made = session(admin, audiences=("watchword", "admin"))
    move(watchword.dsn, made.token.token_id, "idle_expires_at", MINUTE)
    rotated = Party(admin.channel, made.secret).rotate()
    successor = rotated.token
    assert (successor.kind, successor.idle_timeout) == (pb.TOKEN_KIND_SESSION, made.token.idle_timeout)
    assert successor.expires_at.ToDatetime() == made.token.expires_at.ToDatetime()
    unused = successor.idle_expires_at.ToDatetime() - successor.created_at.ToDatetime()
    assert abs(unused - 10 * MINUTE - SLACK) < MINUTE
    assert admin.verdict(rotated.secret) == "active"


def test_sessions_can_be_listed_alone(admin: Party) -> None:
    subject = unique()
    admin.issue(subject)
    made = admin.make(subject=subject, kind=pb.TOKEN_KIND_SESSION, idle_timeout=Duration(seconds=60))
    for kind, count in ((pb.TOKEN_KIND_UNSPECIFIED, 2), (pb.TOKEN_KIND_SERVICE, 1), (pb.TOKEN_KIND_PERSONAL, 0)):
        assert len(admin.list_tokens(pb.ListTokensRequest(subject=subject, kind=kind)).tokens) == count
    found = admin.list_tokens(pb.ListTokensRequest(subject=subject, kind=pb.TOKEN_KIND_SESSION)).tokens
    assert [token.token_id for token in found] == [made.token.token_id]
