"""Rotate: the successor's rights and life, the rotated token's end, races, retries and lineages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from tests.path.party import Party, grant, refusal_of, refused, unique
from tests.path.rows import move
from watchword.token import new_token, parse_token
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb

HOUR = timedelta(hours=1)
EARLIER = timedelta(seconds=-1)
NOTHING = timedelta()
BOTH = ("watchword", "admin")


def caller_of(admin: Party, made: pb.IssueResponse | pb.RotateResponse) -> Party:
    return Party(admin.channel, made.secret, made.token.token_id)


def reason(admin: Party, token_id: str) -> str:
    explanation = admin.get(pb.GetTokenRequest(token_id=token_id, as_verifier="admin")).explanation
    return pb.VerdictReason.Name(explanation.reason).removeprefix("VERDICT_REASON_")


def lasts(token: pb.Token) -> timedelta:
    return token.expires_at.ToDatetime() - token.created_at.ToDatetime()


def test_a_successor_has_the_same_rights_and_a_secret_of_its_own(admin: Party) -> None:
    scope = f"{unique()}.read"
    admin.register(scope)
    made = admin.make(
        audiences=BOTH,
        scopes=[scope],
        grants=[grant("a.b", "team/*", "orders")],
        name="the nightly job",
        metadata={"team": "red"},
        allowed_networks=["127.0.0.0/8", "::1/128"],
    )
    done = caller_of(admin, made).rotate()
    old, new = made.token, done.token
    for name in (
        "subject",
        "scopes",
        "audiences",
        "grants",
        "name",
        "metadata",
        "allowed_networks",
        "issued_by",
        "kind",
    ):
        assert getattr(new, name) == getattr(old, name)
    assert new.token_id != old.token_id
    assert parse_token(done.secret).id_text == new.token_id
    assert (new.lineage_id, new.predecessor_id, new.successor_id) == (old.token_id, old.token_id, "")
    assert done.rotated.token_id == old.token_id
    assert done.rotated.successor_id == new.token_id
    assert done.rotated.HasField("rotated_at")
    assert done.rotated.HasField("usage")
    # As the answer had it, so it is stored.
    for answered in (new, done.rotated):
        stored = admin.record(answered.token_id)
        stored.ClearField("usage")
        answered.ClearField("usage")
        assert stored == answered


def test_both_are_good_during_the_grace(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate()
    assert [admin.verdict(one.secret) for one in (made, done)] == ["active", "active"]
    left = done.rotated.expires_at.ToDatetime() - done.rotated.rotated_at.ToDatetime()
    assert left == HOUR


@pytest.mark.parametrize(
    ("left", "verdict", "why"),
    [(HOUR, "active", "ACTIVE"), (NOTHING, "inactive", "ROTATED"), (EARLIER, "inactive", "ROTATED")],
)
def test_the_rotated_token_ends_with_its_grace(
    watchword: Watchword, admin: Party, left: timedelta, verdict: str, why: str
) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate(pb.RotateRequest(grace=Duration(seconds=7200)))
    move(watchword.dsn, made.token.token_id, "expires_at", left)
    assert admin.verdict(made.secret) == verdict
    assert reason(admin, made.token.token_id) == why
    assert admin.verdict(done.secret) == "active"


def test_no_grace_ends_it_now_and_everywhere(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate(pb.RotateRequest(grace=Duration()))
    assert done.propagation == pb.PROPAGATION_COMPLETE
    assert done.rotated.state == pb.TOKEN_STATE_EXPIRED
    assert [admin.verdict(one.secret) for one in (made, done)] == ["inactive", "active"]
    assert refused(caller_of(admin, made).who_am_i).reason == "TOKEN_INACTIVE"
    answer = admin.validate(made.secret)
    assert answer.position.number >= done.position.number


def test_a_grace_never_prolongs_a_token(watchword: Watchword, admin: Party) -> None:
    made = admin.make(audiences=BOTH, ttl=Duration(seconds=600))
    done = caller_of(admin, made).rotate()
    assert done.rotated.expires_at == made.token.expires_at


def test_a_successor_lives_as_long_as_the_rotated_token_was_made_to(watchword: Watchword, admin: Party) -> None:
    made = admin.make(audiences=BOTH, ttl=Duration(seconds=3600))
    move(watchword.dsn, made.token.token_id, "created_at", -HOUR / 2)
    # Half of it is over, by what the row says; its whole life is an hour and a half then.
    assert timedelta(minutes=89) < lasts(caller_of(admin, made).rotate().token) <= timedelta(minutes=90, seconds=1)


@pytest.mark.parametrize("ttl_seconds", [1, 600, 3600])
def test_a_successor_may_live_shorter_or_as_long(admin: Party, ttl_seconds: int) -> None:
    made = admin.make(audiences=BOTH, ttl=Duration(seconds=3600))
    done = caller_of(admin, made).rotate(pb.RotateRequest(ttl=Duration(seconds=ttl_seconds)))
    assert abs(lasts(done.token) - timedelta(seconds=ttl_seconds)) < timedelta(seconds=1)


def test_a_successor_may_not_live_longer(admin: Party) -> None:
    made = admin.make(audiences=BOTH, ttl=Duration(seconds=3600))
    answer = refused(caller_of(admin, made).rotate, pb.RotateRequest(ttl=Duration(seconds=3601)))
    assert answer.fields == ("ttl",)
    assert "at most 3600 s" in answer.descriptions[0]


def test_generations_do_not_grow_older_than_the_first(admin: Party) -> None:
    made: pb.IssueResponse | pb.RotateResponse = admin.make(audiences=BOTH, ttl=Duration(seconds=3600))
    first = made.token.token_id
    for _ in range(5):
        made = caller_of(admin, made).rotate()
        assert lasts(made.token) <= timedelta(seconds=3601)
        assert made.token.lineage_id == first


def test_life_that_was_taken_is_not_won_back(admin: Party) -> None:
    made = admin.make(audiences=BOTH, ttl=Duration(seconds=7200))
    narrowed = admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, ttl=Duration(seconds=600))).token
    done = caller_of(admin, made).rotate()
    assert done.token.expires_at == narrowed.expires_at


def test_scopes_that_were_taken_are_not_won_back(admin: Party) -> None:
    made = admin.make(audiences=BOTH, scopes=["watchword.read", "watchword.issue"])
    admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=["watchword.issue"]))
    assert caller_of(admin, made).rotate().token.scopes == ["watchword.read"]


def test_a_token_is_rotated_once(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate()
    for party, request in (
        (caller_of(admin, made), pb.RotateRequest()),
        (admin, pb.RotateRequest(token_id=made.token.token_id)),
    ):
        answer = refused(party.rotate, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TOKEN_ROTATED")
        assert dict(answer.metadata) == {"token_id": done.token.token_id}
    # Its successor is the one to rotate.
    again = caller_of(admin, done).rotate()
    assert (again.token.lineage_id, again.token.predecessor_id) == (made.token.token_id, done.token.token_id)


def test_of_two_at_once_one_wins_and_the_other_is_told_which(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    caller = caller_of(admin, made)

    def attempt(_: int) -> tuple[str, str]:
        try:
            return "won", caller.rotate().token.token_id
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            assert refusal.reason == "TOKEN_ROTATED"
            return "lost", refusal.metadata["token_id"]

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert sorted(outcome for outcome, _ in outcomes) == ["lost"] * 7 + ["won"]
    assert len({token_id for _, token_id in outcomes}) == 1


def test_a_retry_replaces_the_successor_that_was_lost(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    caller, request = caller_of(admin, made), pb.RotateRequest(request_id=unique())
    lost = caller.rotate(request)
    found = caller.rotate(request)
    assert found.token.token_id != lost.token.token_id
    assert [admin.verdict(one.secret) for one in (made, lost, found)] == ["active", "inactive", "active"]
    record = admin.record(lost.token.token_id)
    assert (record.state, record.revoke_reason) == (pb.TOKEN_STATE_REVOKED, "SUPERSEDED")
    assert admin.record(made.token.token_id).successor_id == found.token.token_id
    assert found.token.predecessor_id == made.token.token_id
    # Of one caller only, and of one token.
    answer = refused(admin.rotate, pb.RotateRequest(token_id=made.token.token_id, request_id=request.request_id))
    assert answer.reason == "TOKEN_ROTATED"


def test_a_retry_wins_back_nothing_that_was_taken_from_the_lost_one(admin: Party) -> None:
    made = admin.make(audiences=BOTH, scopes=["watchword.read", "watchword.issue"])
    caller, request = caller_of(admin, made), pb.RotateRequest(request_id=unique())
    lost = caller.rotate(request)
    admin.narrow(
        pb.NarrowRequest(token_id=lost.token.token_id, remove_scopes=["watchword.issue"], ttl=Duration(seconds=600))
    )
    found = caller.rotate(request).token
    assert found.scopes == ["watchword.read"]
    assert lasts(found) <= timedelta(seconds=601)


def test_a_successor_that_somebody_ended_is_not_replaced(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    caller, request = caller_of(admin, made), pb.RotateRequest(request_id=unique())
    lost = caller.rotate(request)
    admin.revoke(token_id=lost.token.token_id)
    assert refused(caller.rotate, request).reason == "TOKEN_ROTATED"


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_has_ended_is_not_rotated(watchword: Watchword, admin: Party, how: str) -> None:
    made = admin.make()
    if how == "revoked":
        admin.revoke(token_id=made.token.token_id)
    else:
        move(watchword.dsn, made.token.token_id, "expires_at", NOTHING)
    answer = refused(admin.rotate, pb.RotateRequest(token_id=made.token.token_id))
    assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_NOT_LIVE")
    assert "issue a new one" in answer.message


def test_a_token_without_any_scope_rotates_itself_and_nothing_else(admin: Party) -> None:
    caller, other = admin.party(unique()), admin.party(unique())
    assert refused(caller.rotate, pb.RotateRequest(token_id=other.token_id)).reason == "SCOPE_MISSING"
    assert caller.rotate().token.predecessor_id == caller.token_id


def test_anothers_token_is_rotated_within_one_grant_only(admin: Party) -> None:
    subject = unique("team") + "/a"
    made = admin.make(subject=subject, scopes=["watchword.read"], audiences=["watchword"])
    outside = [
        [grant("*", "*", "watchword")],
        [grant("watchword.*", "nobody", "watchword")],
        [grant("watchword.*", "*", "orders")],
        [grant("watchword.*", "nobody", "watchword"), grant("*", "*", "watchword")],
    ]
    for grants in outside:
        issuer = admin.party(unique(), ["watchword.issue"], grants=grants)
        answer = refused(issuer.rotate, pb.RotateRequest(token_id=made.token.token_id))
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert not admin.record(made.token.token_id).successor_id
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant("watchword.read", subject, "watchword")])
    done = issuer.rotate(pb.RotateRequest(token_id=made.token.token_id))
    assert done.token.issued_by == made.token.issued_by


def test_a_rotation_is_recorded_about_the_rotated_token(admin: Party) -> None:
    caller = admin.party(unique())
    done = caller.rotate()
    events = admin.events(audit_pb.ListEventsRequest(token_id=caller.token_id, action="rotate")).events
    assert [(event.actor_token_id, event.details["successor"]) for event in events] == [
        (caller.token_id, done.token.token_id)
    ]
    assert done.secret[25:58] not in repr(events)


def test_a_revoked_rotated_token_names_its_live_successor(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate()
    answer = admin.revoke(token_id=made.token.token_id)
    assert (answer.revoked_count, answer.live_successor_id) == (1, done.token.token_id)
    assert [admin.verdict(one.secret) for one in (made, done)] == ["inactive", "active"]
    assert not admin.revoke(token_id=done.token.token_id).live_successor_id


def test_a_cascade_takes_the_successors(admin: Party) -> None:
    made = admin.make(audiences=BOTH)
    done = caller_of(admin, made).rotate()
    again = caller_of(admin, done).rotate()
    answer = admin.revoke(pb.RevokeRequest(token_id=made.token.token_id, cascade=True))
    assert (answer.revoked_count, answer.live_successor_id) == (3, "")
    assert [admin.verdict(one.secret) for one in (made, done, again)] == ["inactive"] * 3


def tied_party(admin: Party, parent: Party, **fields: object) -> Party:
    made = parent.make(audiences=list(BOTH), tied=True, **fields)
    return caller_of(admin, made)


@pytest.fixture
def parent(admin: Party) -> Party:
    """May issue everything."""
    return admin.party(unique("parent"), ["watchword.issue"], grants=[grant("* watchword.issue", "*", "* watchword")])


def test_a_tied_token_dies_with_its_issuer_and_survives_its_rotation(admin: Party, parent: Party) -> None:
    child = tied_party(admin, parent)
    assert child.who_am_i().tied_to == parent.token_id
    done = parent.rotate(pb.RotateRequest(grace=Duration()))
    # The end of the old one ends nothing.
    admin.revoke(token_id=parent.token_id)
    assert admin.verdict(child.secret) == "active"
    assert admin.revoke(token_id=done.token.token_id).revoked_count == 2
    assert admin.verdict(child.secret) == "inactive"


def test_tied_tokens_die_down_to_the_leaves(admin: Party, parent: Party) -> None:
    wide = [grant("* watchword.issue", "*", "* watchword")]
    child = tied_party(admin, parent, scopes=["watchword.issue"], grants=wide)
    leaf = tied_party(admin, child)
    free = caller_of(admin, child.make(audiences=list(BOTH)))
    successor = leaf.rotate()
    assert admin.revoke(token_id=parent.token_id).revoked_count == 4
    secrets = (child.secret, leaf.secret, successor.secret, free.secret)
    assert [admin.verdict(secret) for secret in secrets] == ["inactive"] * 3 + ["active"]


def test_a_tied_token_and_its_successor_end_no_later_than_what_they_are_tied_to(admin: Party) -> None:
    made = admin.make(
        audiences=BOTH,
        scopes=["watchword.issue"],
        grants=[grant("*", "*", "* watchword")],
        ttl=Duration(seconds=3600),
    )
    parent = caller_of(admin, made)
    child = tied_party(admin, parent, ttl=Duration(seconds=7200))
    end = made.token.expires_at.ToDatetime()
    assert child.who_am_i().expires_at.ToDatetime() <= end
    assert child.rotate().token.expires_at.ToDatetime() <= end


def test_a_tied_token_whose_lineage_has_ended_is_not_rotated(watchword: Watchword, admin: Party, parent: Party) -> None:
    child = tied_party(admin, parent)
    move(watchword.dsn, parent.token_id, "expires_at", EARLIER)
    assert refused(child.rotate).reason == "TOKEN_NOT_LIVE"


def test_a_preview_shows_what_would_end_and_ends_nothing(admin: Party, parent: Party) -> None:
    child, successor = tied_party(admin, parent), parent.rotate()
    request = pb.RevokeRequest(token_id=parent.token_id, cascade=True, dry_run=True)
    preview = admin.revoke(request)
    named = {token.token_id for token in preview.would_revoke}
    assert named == {parent.token_id, child.token_id, successor.token.token_id}
    assert preview.revoked_count == 3
    assert [admin.verdict(secret) for secret in (child.secret, successor.secret)] == ["active", "inactive"]
    assert admin.record(parent.token_id).state == pb.TOKEN_STATE_LIVE
    request.dry_run = False
    assert admin.revoke(request).revoked_count == 3


def test_a_preview_of_what_lies_out_of_reach_is_refused(admin: Party) -> None:
    made = admin.make()
    revoker = admin.party(unique(), ["watchword.revoke"])
    answer = refused(revoker.revoke, pb.RevokeRequest(token_id=made.token.token_id, dry_run=True))
    assert answer.reason == "GRANT_MISSING"


def test_a_preview_of_a_wrong_secret_shows_nothing(admin: Party) -> None:
    made = admin.make()
    guess = new_token(parse_token(made.secret).token_id).text.decode()
    preview = admin.revoke(pb.RevokeRequest(token=guess, dry_run=True))
    assert (preview.revoked_count, len(preview.would_revoke)) == (0, 0)
