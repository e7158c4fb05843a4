"""Every administrative call is in the audit log, allowed or denied; what verifiers ask all the time is not."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import psycopg
import pytest
from google.protobuf.message import Message

from tests.conftest import running_watchword
from tests.path.audit import awaited, listed
from tests.path.party import Party, administrator, grant, refused, unique
from tests.path.test_access import REQUESTS
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import audit_service_pb2, fleet_service_pb2, subject_service_pb2
from watchword.v1 import token_service_pb2 as pb
from watchword_server.request.access import ACCESS, NOT_ADMINISTRATIVE
from watchword_server.request.audit_trail import DENIED_PER_WINDOW_MAX

WATCHERS = "/watchword.v1.FleetService/ListWatchers"
ASKED: Mapping[str, Message] = {**REQUESTS, WATCHERS: fleet_service_pb2.ListWatchersRequest()}
AUDITED = {path: access.action for path, access in ACCESS.items() if access.action != NOT_ADMINISTRATIVE}
EVERYTHING = ["watchword.issue", "watchword.revoke", "watchword.read", "watchword.register"]


def test_what_verifiers_and_holders_ask_is_all_that_is_not_audited() -> None:
    assert {path.rpartition("/")[2] for path in set(ACCESS) - set(AUDITED)} == {
        "Validate",
        "BatchValidate",
        "WhoAmI",
        "Watch",
    }
    assert set(AUDITED) <= set(ASKED)


@pytest.mark.parametrize(("path", "action"), AUDITED.items())
def test_a_denied_call_is_recorded_with_who_called_and_why_not(admin: Party, path: str, action: str) -> None:
    actor = unique()
    caller = admin.party(actor, ["watchword.validate"])
    answer = refused(caller.send, path, ASKED[path].SerializeToString())
    (event,) = awaited(admin, actor=actor, denied_only=True)
    assert (event.action, event.outcome, event.actor_token_id) == (action, answer.reason, caller.token_id)
    assert event.address


def test_what_is_looked_at_is_recorded(admin: Party) -> None:
    actor = unique()
    reader = admin.party(actor, ["watchword.read"])
    token = admin.issue(unique())
    reader.list_tokens(pb.ListTokensRequest())
    reader.list_scopes(pb.ListScopesRequest())
    reader.record(token.token.token_id)
    reader.get(pb.GetTokenRequest(token=token.secret))
    reader.events(audit_service_pb2.ListEventsRequest(token_id=token.token.token_id))
    reader.blocked(subject_service_pb2.ListBlockedSubjectsRequest())
    reader.fleet.ListWatchers(fleet_service_pb2.ListWatchersRequest(), metadata=reader.metadata)
    events = awaited(admin, 7, actor=actor)
    assert sorted((event.action, event.token_id) for event in events) == sorted(
        [
            ("list_tokens", ""),
            ("list_scopes", ""),
            ("get_token", token.token.token_id),
            ("get_token", token.token.token_id),
            ("list_events", token.token.token_id),
            ("list_blocked_subjects", ""),
            ("list_watchers", ""),
        ]
    )
    assert {(event.outcome, event.actor_token_id) for event in events} == {("allowed", reader.token_id)}


def test_what_changes_something_is_recorded_once_under_its_methods_name(admin: Party) -> None:
    actor, subject, scope = unique(), unique(), unique("scope") + ".read"
    caller = admin.party(actor, EVERYTHING, grants=[grant("* watchword.*", "*", "* watchword")])
    caller.register(scope)
    issued = caller.issue(subject, scopes=[scope])
    caller.narrow(pb.NarrowRequest(token_id=issued.token.token_id, remove_scopes=[scope], no_wait=True))
    caller.rotate(pb.RotateRequest(token_id=issued.token.token_id))
    caller.revoke(pb.RevokeRequest(token_id=issued.token.token_id, no_wait=True))
    caller.block(subject)
    caller.unblock(subject)
    # What is recorded beside calls comes in their order: after this one nothing else can.
    caller.list_scopes(pb.ListScopesRequest())
    awaited(admin, actor=actor, action="list_scopes")
    events = [event for event in listed(admin, actor=actor) if "by_event" not in event.details]
    assert sorted(event.action for event in events) == [
        "block_subject",
        "issue",
        "list_scopes",
        "narrow",
        "register_scopes",
        "revoke",
        "rotate",
        "unblock_subject",
    ]
    assert {event.outcome for event in events} == {"allowed"}


def test_a_revocation_that_is_only_tried_out_has_a_name_of_its_own(admin: Party) -> None:
    token_id = admin.issue(unique()).token.token_id
    admin.revoke(pb.RevokeRequest(token_id=token_id, dry_run=True))
    (event,) = awaited(admin, action="preview_revoke", token_id=token_id)
    assert event.outcome == "allowed"
    assert listed(admin, action="revoke", token_id=token_id) == []


def test_checks_leave_no_event_allowed_or_denied(admin: Party) -> None:
    actor = unique()
    caller = admin.party(actor, ["watchword.read"])
    verifier = admin.party(actor, ["watchword.validate"])
    assert refused(caller.validate, caller.secret).reason == "SCOPE_MISSING"
    assert refused(caller.batch, caller.secret).reason == "SCOPE_MISSING"
    assert verifier.verdict("nonsense") == "inactive"
    assert caller.who_am_i().subject == actor
    caller.list_scopes(pb.ListScopesRequest())
    assert [event.action for event in awaited(admin, actor=actor)] == ["list_scopes"]


def test_a_request_that_is_wrong_in_itself_is_recorded_as_denied(admin: Party) -> None:
    actor = unique()
    caller = admin.party(actor, ["watchword.issue"])
    refused(caller.send, "/watchword.v1.TokenService/Issue", b"\xff")
    refused(caller.issue, "no subject")
    events = awaited(admin, 2, actor=actor)
    assert [(event.action, event.outcome) for event in events] == [("issue", "FIELD_INVALID")] * 2


def test_a_denied_event_names_the_token_that_it_was_about(admin: Party) -> None:
    actor, token = unique(), admin.issue(unique())
    caller = admin.party(actor)
    refused(caller.record, token.token.token_id)
    refused(caller.get, pb.GetTokenRequest(token=token.secret))
    refused(caller.get, pb.GetTokenRequest(token="nonsense"))
    events = awaited(admin, 3, actor=actor)
    assert sorted(event.token_id for event in events) == ["", token.token.token_id, token.token.token_id]


def test_the_subject_that_it_was_about_is_named_if_it_could_be_one(admin: Party) -> None:
    actor, subject = unique(), unique()
    caller = admin.party(actor, ["watchword.read"])
    refused(caller.issue, subject)
    refused(caller.block, subject)
    refused(caller.issue, "x" * 100_000)
    caller.list_tokens(pb.ListTokensRequest(subject=subject))
    events = awaited(admin, 4, actor=actor)
    assert sorted((event.action, event.details.get("subject", "")) for event in events) == [
        ("block_subject", subject),
        ("issue", ""),
        ("issue", subject),
        ("list_tokens", subject),
    ]


def test_denials_of_one_caller_are_bounded_and_its_deeds_are_not(admin: Party) -> None:
    actor = unique()
    caller = admin.party(actor, ["watchword.read"])
    for _ in range(DENIED_PER_WINDOW_MAX + 10):
        refused(caller.issue, "anyone")
    for _ in range(DENIED_PER_WINDOW_MAX + 10):
        caller.list_scopes(pb.ListScopesRequest(page_size=1))
    awaited(admin, DENIED_PER_WINDOW_MAX + 10, actor=actor, action="list_scopes")
    # A minute may have ended on the way.
    denied = [event for event in listed(admin, actor=actor, denied_only=True) if event.action == "issue"]
    assert DENIED_PER_WINDOW_MAX <= len(denied) <= DENIED_PER_WINDOW_MAX + 9


def _without_a_token(admin: Party) -> None:
    refused(admin.send, "/watchword.v1.TokenService/Issue", b"", metadata=())


def _with_nonsense(admin: Party) -> None:
    refused(admin.send, "/watchword.v1.TokenService/Issue", b"", metadata=[("authorization", "Bearer nonsense")])


def _with_a_made_up_token(admin: Party) -> None:
    secret = new_token(new_token_id(2**47)).text.decode()
    refused(admin.send, "/watchword.v1.TokenService/Issue", b"", metadata=[("authorization", f"Bearer {secret}")])


def test_a_flood_of_strangers_leaves_a_bounded_number_of_events_and_how_many_more_there_were(dsn: str) -> None:
    calls = 3 * 60
    with running_watchword(dsn) as running:
        admin = administrator(running)
        for _ in range(calls // 3):
            for call in (_without_a_token, _with_nonsense, _with_a_made_up_token):
                call(admin)
        awaited(admin, DENIED_PER_WINDOW_MAX, denied_only=True)
        running.server.signal(signal.SIGTERM)
        assert running.server.wait() == 0
    with psycopg.connect(dsn) as database:
        rows = database.execute(
            "select action, actor, actor_token_id, outcome, details from audit_events where outcome is not null"
        ).fetchall()
    assert {row[1:3] for row in rows} == {("", None)}
    assert {row[3] for row in rows} <= {"TOKEN_MISSING", "TOKEN_MALFORMED", "TOKEN_INACTIVE"}
    one_by_one = [row for row in rows if row[0] == "issue"]
    more = [int(row[4]["count"]) for row in rows if row[0] == "denied_more"]
    # Whether or not a minute ended on the way.
    assert len(one_by_one) in (DENIED_PER_WINDOW_MAX, 2 * DENIED_PER_WINDOW_MAX)
    assert len(one_by_one) + sum(more) == calls


def test_whoever_claims_a_tokens_id_is_not_taken_for_its_holder(dsn: str) -> None:
    with running_watchword(dsn) as running:
        admin = administrator(running)
        victim = admin.party(unique(), ["watchword.issue"])
        forged = new_token(parse_token(victim.secret).token_id).text.decode()
        refused(admin.send, "/watchword.v1.TokenService/Issue", b"", metadata=[("authorization", f"Bearer {forged}")])
        (event,) = awaited(admin, denied_only=True)
        assert (event.actor, event.actor_token_id, event.outcome) == ("", "", "TOKEN_INACTIVE")
        assert event.details == {"claimed_token_id": victim.token_id}


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_what_was_denied_just_before_the_end_is_recorded_and_no_secret_with_it(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport) as running:
        admin = administrator(running)
        token = admin.issue(unique())
        caller = admin.party(unique())
        refused(caller.get, pb.GetTokenRequest(token=token.secret))
        running.server.signal(signal.SIGTERM)
        assert running.server.wait() == 0
    with psycopg.connect(dsn) as database:
        (written,) = database.execute("select string_agg(audit_events::text, ' ') from audit_events").fetchone() or (
            "",
        )
    assert "SCOPE_MISSING" in written
    for secret in (token.secret, caller.secret, admin.secret):
        assert secret[len("ww_") + 22 :] not in written
