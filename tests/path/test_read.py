"""What operators read: GetToken, ListTokens, ListScopes, ListEvents."""

from __future__ import annotations

import base64
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.path.party import Party, refused, unique
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb

Reader = Callable[[Party, int, str], tuple[list[str], str]]


def _explained(admin: Party, request: pb.GetTokenRequest) -> tuple[str, list[str], bool]:
    answer = admin.get(request)
    reason = pb.VerdictReason.Name(answer.explanation.reason).removeprefix("VERDICT_REASON_")
    return reason, list(answer.explanation.missing_scopes), answer.HasField("token")


def test_get_token_explains_every_reason(admin: Party) -> None:
    scope = f"{unique('s')}.read"
    admin.register(scope)
    good = admin.issue(unique(), ["orders"], [scope])
    revoked = admin.issue(unique(), ["orders"])
    admin.revoke(token_id=revoked.token.token_id)
    expired = admin.issue(unique(), ["orders"], ttl=Duration(seconds=1))
    while admin.record(expired.token.token_id).state == pb.TOKEN_STATE_LIVE:
        pass  # A second by the database's clock.
    unknown = new_token(new_token_id(4_000_000_000_000)).text.decode()
    forged = new_token(parse_token(good.secret).token_id).text.decode()

    def explained(token: str, verifier: str = "orders", *required: str) -> tuple[str, list[str], bool]:
        return _explained(admin, pb.GetTokenRequest(token=token, as_verifier=verifier, required_scopes=required))

    assert explained(good.secret, "orders", scope) == ("ACTIVE", [], True)
    assert explained(good.secret, "orders", scope, "a.b") == ("SCOPE_MISSING", ["a.b"], True)
    assert explained(good.secret[:-1]) == ("MALFORMED", [], False)
    assert explained(unknown) == ("UNKNOWN", [], False)
    # A wrong secret shows the reason and no record.
    assert explained(forged) == ("SECRET_MISMATCH", [], False)
    assert explained(expired.secret) == ("EXPIRED", [], True)
    assert explained(revoked.secret) == ("REVOKED", [], True)
    assert explained(good.secret, "bills") == ("AUDIENCE_MISMATCH", [], True)


def test_get_token_explains_by_id_as_by_token(admin: Party) -> None:
    issued = admin.issue(unique(), ["orders"])
    request = pb.GetTokenRequest(token_id=issued.token.token_id, as_verifier="orders", required_scopes=["a.b"])
    assert _explained(admin, request) == ("SCOPE_MISSING", ["a.b"], True)
    assert not admin.get(pb.GetTokenRequest(token_id=issued.token.token_id)).HasField("explanation")


@pytest.mark.parametrize("method", ["GetToken", "ListScopes"])
def test_a_token_that_does_not_exist_is_not_found(admin: Party, method: str) -> None:
    issued = admin.issue(unique())
    unknown = new_token(new_token_id(4_000_000_000_000)).text.decode()
    forged = new_token(parse_token(issued.secret).token_id).text.decode()
    answers = []
    for target in ({"token": unknown}, {"token": forged}, {"token_id": unknown[3:25]}):
        if method == "GetToken":
            answers.append(refused(admin.get, pb.GetTokenRequest(**target)))  # type: ignore[arg-type]
        else:
            answers.append(refused(admin.list_scopes, pb.ListScopesRequest(**target)))  # type: ignore[arg-type]
    assert {(answer.code, answer.reason) for answer in answers} == {(grpc.StatusCode.NOT_FOUND, "TOKEN_NOT_FOUND")}
    assert len({answer.message for answer in answers}) == 1


@pytest.mark.parametrize("text", ["", "x", "0" * 22, "z" * 22, "é" * 22])
def test_an_id_that_is_none_is_refused(admin: Party, text: str) -> None:
    for answer in (
        refused(admin.get, pb.GetTokenRequest(token_id=text)),
        refused(admin.list_scopes, pb.ListScopesRequest(token_id=text)),
        refused(admin.revoke, token_id=text),
        refused(admin.revoke, issued_by=text),
    ):
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert answer.fields[0] in {"token_id", "issued_by"}


@pytest.mark.parametrize("text", ["", "ww_", "x" * 64, "x" * 100_000])
def test_text_that_is_no_token_is_refused(admin: Party, text: str) -> None:
    for answer in (
        refused(admin.get, pb.GetTokenRequest(token=text)),
        refused(admin.list_scopes, pb.ListScopesRequest(token=text)),
    ):
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("token",))
    # Asked for a verdict, it is an answer.
    assert _explained(admin, pb.GetTokenRequest(token=text, as_verifier="orders")) == ("MALFORMED", [], False)


def test_get_token_needs_a_target_and_a_sensible_verifier(admin: Party) -> None:
    assert refused(admin.get, pb.GetTokenRequest()).fields == ("target",)
    token_id = admin.issue(unique()).token.token_id
    bad = pb.GetTokenRequest(token_id=token_id, as_verifier="no good", required_scopes=["a.*"])
    assert refused(admin.get, bad).fields == ("as_verifier", "required_scopes[0]")


def test_scopes_of_a_token_come_with_what_the_catalogue_says(admin: Party) -> None:
    stem = unique("s")
    admin.tokens.RegisterScopes(
        pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=f"{stem}.read", description="See orders")]),
        metadata=admin.metadata,
        timeout=10,
    )
    issued = admin.issue(unique(), ["x"], [f"{stem}.*", f"{stem}.read"])
    for request in (pb.ListScopesRequest(token=issued.secret), pb.ListScopesRequest(token_id=issued.token.token_id)):
        answer = admin.list_scopes(request)
        assert [scope.name for scope in answer.scopes] == [f"{stem}.*", f"{stem}.read"]
        assert [scope.description for scope in answer.scopes] == ["", "See orders"]
        assert [scope.owner for scope in answer.scopes] == ["", "admin"]
        assert answer.next_page_token == ""


def test_the_catalogue_starts_with_the_meta_scopes(admin: Party) -> None:
    names: list[str] = []
    page = ""
    while True:
        answer = admin.list_scopes(pb.ListScopesRequest(page_size=1000, page_token=page))
        names += [scope.name for scope in answer.scopes]
        page = answer.next_page_token
        if not page:
            break
    assert names == sorted(names, key=str.encode)
    meta = {f"watchword.{deed}" for deed in ("issue", "validate", "revoke", "read", "register")}
    assert {name for name in names if name.startswith("watchword.")} == meta


def _read_tokens(subject: str) -> Reader:
    def read(admin: Party, size: int, page: str) -> tuple[list[str], str]:
        answer = admin.list_tokens(pb.ListTokensRequest(subject=subject, page_size=size, page_token=page))
        return [token.token_id for token in answer.tokens], answer.next_page_token

    return read


def _read_events(actor: str) -> Reader:
    def read(admin: Party, size: int, page: str) -> tuple[list[str], str]:
        answer = admin.events(audit_pb.ListEventsRequest(actor=actor, page_size=size, page_token=page))
        return [event.event_id for event in answer.events], answer.next_page_token

    return read


def _read_scopes(admin: Party, size: int, page: str) -> tuple[list[str], str]:
    answer = admin.list_scopes(pb.ListScopesRequest(page_size=size, page_token=page))
    return [scope.name for scope in answer.scopes], answer.next_page_token


@pytest.fixture(params=["tokens", "events"])
def listed(request: pytest.FixtureRequest, admin: Party) -> tuple[Reader, int]:
    """A way to list, and that there are exactly six to be listed."""
    subject = unique()
    if request.param == "tokens":
        for _ in range(6):
            admin.issue(subject)
        return _read_tokens(subject), 6
    actor = admin.party(subject, ["watchword.revoke"])
    for _ in range(6):
        actor.revoke(subject=unique())
    return _read_events(subject), 6


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 1000])
def test_pages_hold_everything_once_and_in_order(admin: Party, listed: tuple[Reader, int], size: int) -> None:
    read, count = listed
    whole, end = read(admin, 0, "")
    assert (len(whole), end) == (count, "")
    pages, page = [], ""
    while True:
        found, page = read(admin, size, page)
        pages.append(found)
        if not page:
            break
    assert [one for found in pages for one in found] == whole
    # No empty page at the end, also where the last one is exactly full.
    assert [len(found) for found in pages] == [size] * (count // size) + ([count % size] if count % size else [])


@pytest.mark.parametrize("size", [-1, -(2**31), 1001, 2**31 - 1])
def test_a_page_size_beyond_the_limits_is_refused(admin: Party, size: int) -> None:
    for read in (_read_tokens("x"), _read_events("x"), _read_scopes):
        answer = refused(read, admin, size, "")
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_size",))


@pytest.mark.parametrize(
    "page",
    [
        "x",
        "=",
        "AA=A",
        "é",
        "!!!!",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"a\0b").decode(),
    ],
)
def test_a_page_token_that_nobody_gave_is_refused(admin: Party, page: str) -> None:
    for read in (_read_tokens("x"), _read_events("x"), _read_scopes):
        answer = refused(read, admin, 10, page)
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))


def test_a_page_token_tells_nothing_to_whoever_looks_at_it(admin: Party) -> None:
    _, page = _read_scopes(admin, 1, "")
    assert "watchword" not in page


def test_tokens_are_filtered_by_subject_issuer_and_state(admin: Party) -> None:
    subject = unique()
    issuer = admin.party(unique(), ["watchword.issue"], grants=[pb.Grant(subjects=["*"], audiences=["*"])])
    mine, other = admin.issue(subject).token.token_id, issuer.issue(subject).token.token_id
    gone = issuer.issue(subject).token.token_id
    admin.revoke(token_id=gone)

    def listed(**filters: str | bool) -> set[str]:
        request = pb.ListTokensRequest(**filters)  # type: ignore[arg-type]
        return {token.token_id for token in admin.list_tokens(request).tokens}

    assert listed(subject=subject) == {mine, other}
    assert listed(issued_by=issuer.token_id) == {other}
    assert listed(subject=subject, issued_by=issuer.token_id) == {other}
    assert listed(subject=subject, include_inactive=True) == {mine, other, gone}
    assert listed(subject=subject[:-1]) == set()
    for filters, field in (({"subject": "a b"}, "subject"), ({"issued_by": "x"}, "issued_by")):
        answer = refused(admin.list_tokens, pb.ListTokensRequest(**filters))  # type: ignore[arg-type]
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_tokens_come_in_the_order_in_which_they_end(admin: Party) -> None:
    subject = unique()
    for seconds in (5000, 100, 3000):
        admin.issue(subject, ttl=Duration(seconds=seconds))
    tokens = admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens
    ends = [token.expires_at.ToDatetime() for token in tokens]
    assert ends == sorted(ends)
    assert len(ends) == 3


def test_events_are_filtered_by_actor_token_action_and_time(admin: Party) -> None:
    actor, subject = unique(), unique()
    deputy = admin.party(
        actor, ["watchword.issue", "watchword.revoke"], grants=[pb.Grant(subjects=["*"], audiences=["*"])]
    )
    token_id = deputy.issue(subject).token.token_id
    deputy.revoke(token_id=token_id)

    def listed(since: Timestamp | None = None, **filters: str) -> list[str]:
        request = audit_pb.ListEventsRequest(actor=actor, since=since, **filters)  # type: ignore[arg-type]
        return [event.action for event in admin.events(request).events]

    # Newest first.
    assert listed() == ["revoke", "issue"]
    assert listed(action="issue") == ["issue"]
    assert listed(token_id=token_id) == ["revoke", "issue"]
    assert listed(token_id=deputy.token_id) == []
    assert listed(action="nonsense") == []
    newest = admin.events(audit_pb.ListEventsRequest(actor=actor)).events[0].occurred_at
    assert listed(since=newest) == ["revoke"]
    assert listed(since=Timestamp(seconds=newest.seconds + 3600)) == []
    assert listed(since=Timestamp(seconds=0)) == ["revoke", "issue"]


@pytest.mark.parametrize("since", [Timestamp(seconds=2**63 - 1), Timestamp(seconds=-(2**63)), Timestamp(nanos=-1)])
def test_an_impossible_instant_is_refused(admin: Party, since: Timestamp) -> None:
    answer = refused(admin.events, audit_pb.ListEventsRequest(since=since))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("since",))


@pytest.mark.parametrize(
    "since", [Timestamp(seconds=-62_135_596_800), Timestamp(seconds=253_402_300_799, nanos=999_999_999)]
)
def test_the_first_and_the_last_instant_are_instants(admin: Party, since: Timestamp) -> None:
    events = admin.events(audit_pb.ListEventsRequest(since=since, page_size=1)).events
    assert len(events) == (1 if since.seconds < 0 else 0)


def test_bad_filters_of_events_are_named(admin: Party) -> None:
    answer = refused(admin.events, audit_pb.ListEventsRequest(actor="a b", action="x\x00"))
    assert answer.fields == ("actor", "action")
    assert refused(admin.events, audit_pb.ListEventsRequest(token_id="x")).fields == ("token_id",)


def test_the_bootstrap_is_in_the_audit_log(admin: Party) -> None:
    (event,) = admin.events(audit_pb.ListEventsRequest(action="bootstrap")).events
    assert (event.actor, event.address, event.actor_token_id) == ("bootstrap", "local", "")
    assert event.details["subject"] == "admin"
