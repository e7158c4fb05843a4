"""What a token's holder may do about it with no scope at all: see it, revoke it, rotate it."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, refused, unique
from watchword.v1 import token_service_pb2 as pb


def test_a_caller_sees_its_own_record(admin: Party) -> None:
    made = admin.make(
        audiences=["watchword"],
        name="the nightly job",
        metadata={"team": "red"},
        kind=pb.TOKEN_KIND_PERSONAL,
        owner="ann",
        ttl=Duration(seconds=3600),
    )
    seen = Party(admin.channel, made.secret).who_am_i()
    assert seen.HasField("usage")
    seen.ClearField("usage")
    assert seen == admin_view(admin, made.token.token_id)
    assert (seen.name, dict(seen.metadata), seen.owner) == ("the nightly job", {"team": "red"}, "ann")
    assert (seen.state, seen.lineage_id) == (pb.TOKEN_STATE_LIVE, made.token.token_id)


def admin_view(admin: Party, token_id: str) -> pb.Token:
    record = admin.record(token_id)
    record.ClearField("usage")
    return record


def test_what_a_caller_sees_has_no_secret_in_it(admin: Party) -> None:
    made = admin.make(audiences=["watchword"])
    seen = Party(admin.channel, made.secret).who_am_i()
    assert made.secret[25:58].encode() not in seen.SerializeToString()


def test_scopes_that_were_never_needed_are_unused(admin: Party) -> None:
    caller = admin.party(unique(), ["watchword.issue", "watchword.read"])
    assert caller.who_am_i().usage.unused_scopes == ["watchword.issue", "watchword.read"]


def test_a_caller_revokes_itself(admin: Party) -> None:
    caller = admin.party(unique())
    assert caller.revoke(token=caller.secret).revoked_count == 1
    assert refused(caller.who_am_i).reason == "TOKEN_INACTIVE"


def test_a_caller_without_scopes_sees_nobody_else(admin: Party) -> None:
    caller, other = admin.party(unique()), admin.party(unique())
    assert refused(caller.get, pb.GetTokenRequest(token_id=other.token_id)).reason == "SCOPE_MISSING"
    assert refused(caller.rotate, pb.RotateRequest(token_id=other.token_id)).reason == "SCOPE_MISSING"
