"""Narrow: what a token gives up is gone everywhere, and nothing else changes."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from tests.path.party import Party, grant, refused, unique
from tests.path.rows import move
from watchword.token import format_token_id, new_token_id
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb


@pytest.fixture
def scope(admin: Party) -> str:
    """In the catalogue."""
    name = f"{unique()}.read"
    admin.register(name)
    return name


def test_a_scope_that_was_removed_is_lacking_once_the_call_is_answered(admin: Party, scope: str) -> None:
    made = admin.make(scopes=[scope, "watchword.read"])
    assert admin.verdict(made.secret, scope) == "active"
    done = admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=[scope], reason="too much"))
    assert done.propagation == pb.PROPAGATION_COMPLETE
    assert done.token.scopes == ["watchword.read"]
    answer = admin.validate(made.secret, scope)
    assert list(answer.insufficient.missing_scopes) == [scope]
    assert answer.position.number >= done.position.number
    assert admin.verdict(made.secret, "watchword.read") == "active"


def test_life_that_was_taken_is_gone(admin: Party) -> None:
    made = admin.make()
    done = admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, ttl=Duration(seconds=60)))
    left = admin.validate(made.secret).active.remaining.ToTimedelta()
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)
    assert admin.record(made.token.token_id).expires_at == done.token.expires_at


def test_nothing_else_changes(admin: Party, scope: str) -> None:
    made = admin.make(scopes=[scope], metadata={"k": "v"}, allowed_networks=["10.0.0.0/8"])
    before = admin.record(made.token.token_id)
    done = admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=[scope]))
    before.ClearField("scopes")
    before.ClearField("usage")
    assert done.token == before


def test_all_scopes_can_be_taken(admin: Party, scope: str) -> None:
    made = admin.make(scopes=[scope, "watchword.read"])
    admin.narrow(pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=["watchword.read", scope]))
    assert admin.verdict(made.secret) == "active"
    assert admin.record(made.token.token_id).scopes == []


def test_a_callers_own_token_is_narrowed_at_once(admin: Party) -> None:
    caller = admin.party(unique(), ["watchword.read"])
    admin.narrow(pb.NarrowRequest(token_id=caller.token_id, remove_scopes=["watchword.read"]))
    assert refused(caller.list_tokens, pb.ListTokensRequest()).reason == "SCOPE_MISSING"


def test_a_token_that_is_not_there_is_told(admin: Party) -> None:
    request = pb.NarrowRequest(token_id=format_token_id(new_token_id(0)), ttl=Duration(seconds=60))
    answer = refused(admin.narrow, request)
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "TOKEN_NOT_FOUND")


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_has_ended_is_not_narrowed(watchword: Watchword, admin: Party, how: str, scope: str) -> None:
    made = admin.make(scopes=[scope])
    if how == "revoked":
        admin.revoke(token_id=made.token.token_id)
    else:
        move(watchword.dsn, made.token.token_id, "expires_at", timedelta())
    for request in (
        pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=[scope]),
        pb.NarrowRequest(token_id=made.token.token_id, ttl=Duration(seconds=60)),
    ):
        answer = refused(admin.narrow, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_NOT_LIVE")


def test_a_token_out_of_reach_is_left_alone_and_nothing_is_told_of_it(admin: Party, scope: str) -> None:
    made = admin.make(scopes=[scope])
    revoker = admin.party(unique(), ["watchword.revoke"], grants=[grant("*", "nobody", "*")])
    for request in (
        pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=[scope]),
        pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=["not.held"]),
        pb.NarrowRequest(token_id=made.token.token_id, ttl=Duration(seconds=10**9)),
    ):
        answer = refused(revoker.narrow, request)
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
        assert scope not in repr(answer)
    assert admin.record(made.token.token_id).scopes == [scope]


def test_a_narrowing_is_recorded(admin: Party, scope: str) -> None:
    made = admin.make(scopes=[scope])
    admin.narrow(
        pb.NarrowRequest(
            token_id=made.token.token_id, remove_scopes=[scope], ttl=Duration(seconds=60), reason="too much"
        )
    )
    events = admin.events(audit_pb.ListEventsRequest(token_id=made.token.token_id, action="narrow")).events
    assert [(event.details["removed_scopes"], event.details["reason"]) for event in events] == [(scope, "too much")]
