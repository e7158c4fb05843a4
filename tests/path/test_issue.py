"""Issue: what a new token holds, and what nobody can put into one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from tests.path.audit import awaited, listed
from tests.path.party import Party, grant, refusal_of, refused, unique
from watchword.token import parse_token
from watchword.v1 import token_service_pb2 as pb

DAY_SECONDS = 86_400


def _life(token: pb.Token) -> timedelta:
    return token.expires_at.ToDatetime() - token.created_at.ToDatetime()


def test_the_reply_holds_the_whole_token_and_its_record(admin: Party) -> None:
    scope = f"{unique('s')}.read"
    admin.register(scope)
    issued = admin.issue(
        "ann@example.org",
        ["orders", "*"],
        [scope],
        grants=[grant(scope, "team/*", "orders")],
        name="Ann's laptop: größer",
        metadata={"team": "rot-grün"},
    )
    token = issued.token
    assert len(issued.secret) == 64
    assert issued.secret.startswith("ww_" + token.token_id)
    parse_token(issued.secret)
    assert (token.subject, token.name, dict(token.metadata)) == (
        "ann@example.org",
        "Ann's laptop: größer",
        {"team": "rot-grün"},
    )
    assert (list(token.scopes), list(token.audiences)) == ([scope], ["orders", "*"])
    assert list(token.grants) == [grant(scope, "team/*", "orders")]
    assert token.state == pb.TOKEN_STATE_LIVE
    assert not token.HasField("revoked_at")
    # What is shown later is what was shown then; the instant of creation is the commit's, not the check's.
    later = admin.record(token.token_id)
    later.created_at.CopyFrom(token.created_at)
    assert list(later.usage.unused_scopes) == [scope]
    later.ClearField("usage")
    assert later == token


def test_a_token_lives_90_days_unless_asked_otherwise(admin: Party) -> None:
    life = _life(admin.record(admin.issue(unique()).token.token_id))
    assert timedelta(days=90) - timedelta(seconds=30) < life <= timedelta(days=90)


@pytest.mark.parametrize("seconds", [1, 3600, 366 * DAY_SECONDS])
def test_a_ttl_within_the_limits_is_taken(admin: Party, seconds: int) -> None:
    token = admin.issue(unique(), ttl=Duration(seconds=seconds)).token
    # Counted from the read that authenticated the caller, which is a moment before the commit.
    assert timedelta() <= timedelta(seconds=seconds) - _life(token) < timedelta(seconds=1)


@pytest.mark.parametrize(
    "ttl",
    [Duration(), Duration(nanos=999_999_999), Duration(seconds=-5), Duration(seconds=366 * DAY_SECONDS, nanos=1000)],
)
def test_a_ttl_beyond_the_limits_is_refused(admin: Party, ttl: Duration) -> None:
    answer = refused(admin.issue, unique(), ttl=ttl)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert answer.fields == ("ttl",)


def test_every_wrong_field_is_named_at_once(admin: Party) -> None:
    request = pb.IssueRequest(subject="", scopes=["Bad"], audiences=[], name="a\x00", request_id="white space")
    answer = refused(lambda: admin.tokens.Issue(request, metadata=admin.metadata, timeout=10))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(answer.fields) == {"subject", "scopes[0]", "audiences", "name", "request_id"}
    assert "and 4 more" in answer.message


def test_an_unknown_scope_is_refused_with_the_nearest_known_one(admin: Party) -> None:
    stem = unique("s")
    admin.register(f"{stem}.read")
    answer = refused(admin.issue, unique(), scopes=[f"{stem}.raed"])
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("scopes[0]",))
    assert f"'{stem}.read'" in answer.descriptions[0]


def test_a_scope_is_known_to_issue_as_soon_as_it_is_registered(admin: Party) -> None:
    scope = f"{unique('s')}.read"
    assert refused(admin.issue, unique(), scopes=[scope]).fields == ("scopes[0]",)
    admin.register(scope)
    assert list(admin.issue(unique(), scopes=[scope]).token.scopes) == [scope]


def test_a_wildcard_needs_a_catalogued_scope_below_it(admin: Party) -> None:
    stem = unique("s")
    admin.register(f"{stem}.a.read")
    for known in (f"{stem}.*", f"{stem}.a.*"):
        admin.issue(unique(), scopes=[known])
    for unknown in (f"{stem}.b.*", f"{stem}.a.read.*", f"{stem[:-1]}.*"):
        assert refused(admin.issue, unique(), scopes=[unknown]).fields == ("scopes[0]",)


def test_nobody_without_a_grant_issues_anything(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"])
    answer = refused(issuer.issue, unique())
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")


@pytest.fixture
def stem(admin: Party) -> str:
    """The first segment of scopes `.read` and `.write`."""
    made = unique("s")
    admin.register(f"{made}.read", f"{made}.write")
    return made


def test_an_issuer_gives_all_that_its_grant_holds(admin: Party, stem: str) -> None:
    held = grant(f"{stem}.*", "team/*", "orders bills")
    issuer = admin.party(unique(), ["watchword.issue"], grants=[held])
    issued = issuer.issue("team/ann", ["orders", "bills"], [f"{stem}.read", f"{stem}.*"], grants=[held])
    assert issued.token.issued_by == issuer.token_id


@pytest.mark.parametrize(
    ("scope", "subject", "audience"),
    [
        ("{}.write", "team/ann", "orders"),
        ("{}.*", "team/ann", "orders"),
        ("{}.read", "team", "orders"),
        ("{}.read", "teams/ann", "orders"),
        ("{}.read", "team/ann", "bills"),
        ("{}.read", "team/ann", "*"),
        ("{}.read", "team/ann", "watchword"),
        ("watchword.issue", "team/ann", "orders"),
        ("*", "team/ann", "orders"),
    ],
)
def test_an_issuer_gives_nothing_outside_its_grant(
    admin: Party, stem: str, scope: str, subject: str, audience: str
) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant(f"{stem}.read", "team/*", "orders")])
    before = admin.list_tokens(pb.ListTokensRequest(issued_by=issuer.token_id)).tokens
    answer = refused(issuer.issue, subject, [audience], [scope.format(stem)])
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert list(admin.list_tokens(pb.ListTokensRequest(issued_by=issuer.token_id)).tokens) == list(before) == []


def test_two_grants_that_each_cover_half_cover_nothing_together(admin: Party, stem: str) -> None:
    issuer = admin.party(
        unique(),
        ["watchword.issue"],
        grants=[grant(f"{stem}.read", "team/*", "orders"), grant(f"{stem}.write", "ops/*", "orders")],
    )
    issuer.issue("team/ann", ["orders"], [f"{stem}.read"])
    issuer.issue("ops/bob", ["orders"], [f"{stem}.write"])
    for subject, scopes in (("team/ann", [".write"]), ("ops/bob", [".read"]), ("team/ann", [".read", ".write"])):
        asked = [stem + scope for scope in scopes]
        answer = refused(issuer.issue, subject, ["orders"], asked)
        assert answer.reason == "GRANT_MISSING"


def test_a_grant_wider_than_ones_own_cannot_be_passed_on(admin: Party, stem: str) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant(f"{stem}.read", "team/*", "orders")])
    for wider in (
        grant(f"{stem}.*", "team/*", "orders"),
        grant(f"{stem}.read", "*", "orders"),
        grant(f"{stem}.read", "team/*", "*"),
        grant(f"{stem}.read watchword.issue", "team/*", "orders"),
    ):
        answer = refused(issuer.issue, "team/ann", ["orders"], grants=[wider])
        assert answer.reason == "GRANT_MISSING"
    issuer.issue("team/ann", ["orders"], grants=[grant(f"{stem}.read", "team/ann", "orders")])


def test_a_star_grant_does_not_reach_watchword_itself(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant("*", "*", "*")])
    issuer.issue(unique(), ["*"], ["*"])
    for audience, scope in (("watchword", "*"), ("orders", "watchword.read"), ("orders", "watchword.*")):
        answer = refused(issuer.issue, unique(), [audience], [scope])
        assert answer.reason == "GRANT_MISSING"


def test_a_used_request_id_names_the_token_and_never_its_secret(admin: Party) -> None:
    request_id = unique()
    first = admin.issue(unique(), request_id=request_id)
    answer = refused(admin.issue, unique(), request_id=request_id)
    assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_USED")
    assert dict(answer.metadata) == {"token_id": first.token.token_id}
    assert first.secret[25:] not in answer.message
    # The way out that the answer names.
    assert admin.revoke(token_id=answer.metadata["token_id"]).revoked_count == 1
    admin.issue(unique(), request_id=unique())


def test_a_request_id_belongs_to_the_callers_subject(admin: Party) -> None:
    request_id, subject = unique(), unique()
    first, second = (admin.party(one, ["watchword.issue"], grants=[grant()]) for one in (unique(), unique()))
    issued = [one.issue(subject, request_id=request_id).token.token_id for one in (first, second)]
    assert len(set(issued)) == 2
    # Another token of the same subject is the same caller: a renewed token does not break a retry.
    again = admin.party(admin.record(first.token_id).subject, ["watchword.issue"], grants=[grant()])
    answer = refused(again.issue, subject, request_id=request_id)
    assert answer.metadata["token_id"] == issued[0]


def test_concurrent_issues_with_one_request_id_make_one_token(admin: Party) -> None:
    subject, request_id = unique(), unique()

    def issue(_: int) -> str:
        try:
            return "made " + admin.issue(subject, request_id=request_id).token.token_id
        except grpc.RpcError as error:
            answer = refusal_of(error)
            return f"{answer.code.name} {answer.metadata.get('token_id')}"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(issue, range(32)))
    made = [answer.removeprefix("made ") for answer in answers if answer.startswith("made ")]
    assert len(made) == 1
    assert set(answers) == {f"made {made[0]}", f"ALREADY_EXISTS {made[0]}"}
    assert [token.token_id for token in admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens] == made


def test_a_refused_request_does_not_use_up_its_request_id(admin: Party) -> None:
    request_id = unique()
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant("*", "team/*", "*")])
    assert refused(issuer.issue, "other", request_id=request_id).reason == "GRANT_MISSING"
    issuer.issue("team/ann", request_id=request_id)


def test_issue_writes_its_audit_event_in_the_same_transaction(watchword: Watchword, admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant()])
    issued = issuer.issue(unique(), request_id=unique())
    (event,) = listed(admin, token_id=issued.token.token_id)
    assert (event.action, event.actor_token_id) == ("issue", issuer.token_id)
    assert event.actor == admin.record(issuer.token_id).subject
    assert event.address
    assert event.details["subject"] == issued.token.subject
    token_id = parse_token(issued.secret).token_id
    with psycopg.connect(watchword.dsn) as database:
        rows = database.execute(
            "select xmin::text from tokens where id = %(id)s union all"
            " select xmin::text from audit_events where token_id = %(id)s and action = 'issue' union all"
            " select xmin::text from issue_requests where token_id = %(id)s",
            {"id": token_id},
        ).fetchall()
    assert len(rows) == 3
    assert len(set(rows)) == 1


def test_a_refused_issue_leaves_the_event_of_its_refusal_alone(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"])
    answer = refused(issuer.issue, unique())
    (event,) = awaited(admin, actor=admin.record(issuer.token_id).subject)
    assert (event.action, event.outcome) == ("issue", answer.reason)


def test_the_secret_is_not_in_the_database(watchword: Watchword, admin: Party) -> None:
    issued = admin.issue(unique())
    token = parse_token(issued.secret)
    with psycopg.connect(watchword.dsn) as database:
        row = database.execute("select tokens::text, digest from tokens where id = %s", (token.token_id,)).fetchone()
    assert row is not None
    assert issued.secret[25:58] not in row[0]
    assert len(row[1]) == 32
