"""A deadline that ends while the database commits: never half done, and the caller can find out."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import psycopg
import pytest

from tests.conftest import Watchword
from tests.path.locks import locked_tokens, wait_for_waiting, wait_until_revoked, waits
from tests.path.party import Party, code_of, grant, refused, unique
from watchword.token import parse_token
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb

DEADLINES_SECONDS = (0.4, 2.0, 10.0)


@pytest.fixture
def issuer(admin: Party) -> Party:
    """Whose row is locked, so that what it issues waits for its commit."""
    return admin.party(unique("issuer"), ["watchword.issue"], grants=[grant()])


def _outlasted(dsn: str, call: Callable[[float], object]) -> None:
    """Makes a call whose deadline ends while it waits for a lock; with a longer one where it had not yet begun."""
    for seconds in DEADLINES_SECONDS:
        assert refused(call, seconds).code is grpc.StatusCode.DEADLINE_EXCEEDED
        if waits(dsn):
            return
    raise AssertionError("it never began")


def _actions(admin: Party, token_id: str) -> list[str]:
    return [event.action for event in admin.events(audit_pb.ListEventsRequest(token_id=token_id)).events]


def test_an_issue_whose_deadline_ends_is_done_whole_or_not_at_all(
    watchword: Watchword, admin: Party, issuer: Party
) -> None:
    subject, request_id = unique(), unique()
    with locked_tokens(watchword.dsn, issuer.secret):
        _outlasted(watchword.dsn, lambda seconds: issuer.issue(subject, request_id=request_id, timeout=seconds))
        assert not admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens
    # `request_id` tells: it was done, and its secret is lost; or it was not, and is done now.
    again = refused(issuer.issue, subject, request_id=request_id)
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_USED")
    (token,) = admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens
    assert token.token_id == again.metadata["token_id"]
    assert _actions(admin, token.token_id) == ["issue"]
    assert admin.revoke(token_id=token.token_id).revoked_count == 1


def test_an_issue_with_hardly_any_deadline_makes_one_token_at_most(admin: Party, issuer: Party) -> None:
    subject, request_id = unique(), unique()
    answer = refused(issuer.issue, subject, request_id=request_id, timeout=0.001)
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    # Or it was faster than its deadline, after all; then the token is there.
    assert code_of(issuer.issue, subject, request_id=request_id) in {
        grpc.StatusCode.OK,
        grpc.StatusCode.ALREADY_EXISTS,
    }
    (token,) = admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens
    assert _actions(admin, token.token_id) == ["issue"]


def test_one_issue_that_gave_up_does_not_take_others_along(watchword: Watchword, admin: Party, issuer: Party) -> None:
    subject = unique()
    with locked_tokens(watchword.dsn, issuer.secret):
        patient = [
            issuer.tokens.Issue.future(
                pb.IssueRequest(subject=subject, audiences=["x"]), metadata=issuer.metadata, timeout=30
            )
            for _ in range(3)
        ]
        assert refused(issuer.issue, subject, timeout=DEADLINES_SECONDS[0]).code is grpc.StatusCode.DEADLINE_EXCEEDED
    given = {one.result(timeout=20).token.token_id for one in patient}
    stored = {token.token_id for token in admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens}
    assert given <= stored


@pytest.mark.parametrize("by", ["token", "token_id", "subject"])
def test_a_revoke_whose_deadline_ends_is_done_whole(watchword: Watchword, admin: Party, by: str) -> None:
    issued = admin.issue(unique())
    target = {"token": issued.secret, "token_id": issued.token.token_id, "subject": issued.token.subject}[by]
    request = pb.RevokeRequest(**{by: target})  # type: ignore[arg-type]
    with locked_tokens(watchword.dsn, issued.secret):
        _outlasted(watchword.dsn, lambda seconds: admin.revoke(request, timeout=seconds))
    # Begun is begun: it runs to its end although nobody waits. Asking again finds it done.
    wait_until_revoked(watchword.dsn, issued.secret)
    assert admin.revoke(request).revoked_count == 0
    assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_REVOKED
    token_id = parse_token(issued.secret).token_id
    with psycopg.connect(watchword.dsn) as database:
        changes = database.execute("select position from changes where token_id = %s", (token_id,)).fetchall()
    # The first moved the position, and a repetition by name moves it again.
    assert len(changes) == (1 if by == "subject" else 2)


def test_a_cancelled_revoke_is_done_whole_too(watchword: Watchword, admin: Party) -> None:
    issued = admin.issue(unique())
    with locked_tokens(watchword.dsn, issued.secret):
        call = admin.tokens.Revoke.future(pb.RevokeRequest(token=issued.secret), metadata=admin.metadata, timeout=30)
        wait_for_waiting(watchword.dsn)
        call.cancel()
    wait_until_revoked(watchword.dsn, issued.secret)
    assert admin.revoke(token=issued.secret).revoked_count == 0
    assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_REVOKED


def test_an_issuer_revoked_while_its_issue_waits_issues_nothing(
    watchword: Watchword, admin: Party, issuer: Party
) -> None:
    subject = unique()
    with locked_tokens(watchword.dsn, issuer.secret) as database:
        call = issuer.tokens.Issue.future(
            pb.IssueRequest(subject=subject, audiences=["x"]), metadata=issuer.metadata, timeout=30
        )
        wait_for_waiting(watchword.dsn)
        database.execute("update tokens set revoked_at = now() where id = %s", (parse_token(issuer.secret).token_id,))
        database.commit()
    answer = refused(call.result)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")
    assert not admin.list_tokens(pb.ListTokensRequest(subject=subject)).tokens


def test_checks_go_on_while_a_commit_waits(watchword: Watchword, admin: Party, issuer: Party) -> None:
    verifier = admin.party(unique(), ["watchword.validate"])
    with locked_tokens(watchword.dsn, issuer.secret):
        call = issuer.tokens.Issue.future(
            pb.IssueRequest(subject=unique(), audiences=["x"]), metadata=issuer.metadata, timeout=30
        )
        wait_for_waiting(watchword.dsn)
        assert verifier.verdict(issuer.secret) == "inactive"
        # Another caller's commit is not held up by this one's.
        admin.issue(unique())
        assert not call.done()
    assert call.result(timeout=20).secret
