"""Who may call what: every RPC, with every kind of caller that must not."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
import pytest
from google.protobuf.message import Message

from tests.path.party import AUDIT_SERVICE, SUBJECT_SERVICE, TOKEN_SERVICE, Party, refused, unique
from watchword.token import format_token_id, new_token_id
from watchword.v1 import audit_service_pb2, subject_service_pb2, token_service_pb2
from watchword.v1 import token_service_pb2 as pb

WHO_AM_I = TOKEN_SERVICE + "WhoAmI"
NOBODYS_TOKEN_ID = format_token_id(new_token_id(0))

SCOPES = {
    TOKEN_SERVICE + "Issue": "watchword.issue",
    TOKEN_SERVICE + "Validate": "watchword.validate",
    TOKEN_SERVICE + "BatchValidate": "watchword.validate",
    TOKEN_SERVICE + "Revoke": "watchword.revoke",
    TOKEN_SERVICE + "ListScopes": "watchword.read",
    TOKEN_SERVICE + "GetToken": "watchword.read",
    TOKEN_SERVICE + "ListTokens": "watchword.read",
    TOKEN_SERVICE + "Rotate": "watchword.issue",
    TOKEN_SERVICE + "Narrow": "watchword.revoke",
    TOKEN_SERVICE + "RegisterScopes": "watchword.register",
    SUBJECT_SERVICE + "BlockSubject": "watchword.revoke",
    SUBJECT_SERVICE + "UnblockSubject": "watchword.revoke",
    SUBJECT_SERVICE + "ListBlockedSubjects": "watchword.read",
    AUDIT_SERVICE + "ListEvents": "watchword.read",
}
META_SCOPES = sorted(set(SCOPES.values()))
METHODS = sorted(SCOPES)
# Well-formed requests, so that nothing but the caller is wrong.
REQUESTS: Mapping[str, Message] = {
    TOKEN_SERVICE + "Issue": pb.IssueRequest(subject="nobody", audiences=["nowhere"]),
    TOKEN_SERVICE + "Validate": pb.ValidateRequest(token="nothing"),
    TOKEN_SERVICE + "BatchValidate": pb.BatchValidateRequest(requests=[pb.ValidateRequest(token="nothing")]),
    TOKEN_SERVICE + "Revoke": pb.RevokeRequest(subject="nobody-at-all"),
    TOKEN_SERVICE + "ListScopes": pb.ListScopesRequest(),
    TOKEN_SERVICE + "GetToken": pb.GetTokenRequest(token="nothing", as_verifier="anyone"),
    TOKEN_SERVICE + "ListTokens": pb.ListTokensRequest(),
    TOKEN_SERVICE + "Rotate": pb.RotateRequest(token_id=NOBODYS_TOKEN_ID),
    TOKEN_SERVICE + "Narrow": pb.NarrowRequest(token_id=NOBODYS_TOKEN_ID, remove_scopes=["some.scope"]),
    TOKEN_SERVICE + "RegisterScopes": pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name="some.scope")]),
    SUBJECT_SERVICE + "BlockSubject": subject_service_pb2.BlockSubjectRequest(subject="nobody-at-all"),
    SUBJECT_SERVICE + "UnblockSubject": subject_service_pb2.UnblockSubjectRequest(subject="nobody-at-all"),
    SUBJECT_SERVICE + "ListBlockedSubjects": subject_service_pb2.ListBlockedSubjectsRequest(),
    AUDIT_SERVICE + "ListEvents": audit_service_pb2.ListEventsRequest(),
}


# Let in, and then stopped: by what it may give or end, which is nothing, or because there is no such token.
STOPPED = {
    TOKEN_SERVICE + "Issue": "GRANT_MISSING",
    TOKEN_SERVICE + "Rotate": "TOKEN_NOT_FOUND",
    TOKEN_SERVICE + "Narrow": "TOKEN_NOT_FOUND",
    TOKEN_SERVICE + "RegisterScopes": "GRANT_MISSING",
    SUBJECT_SERVICE + "BlockSubject": "GRANT_MISSING",
    SUBJECT_SERVICE + "UnblockSubject": "GRANT_MISSING",
}


def test_every_method_of_these_services_is_in_this_table() -> None:
    served = {
        f"/{service.full_name}/{method.name}"
        for service in (
            token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
            subject_service_pb2.DESCRIPTOR.services_by_name["SubjectService"],
            audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
        )
        for method in service.methods
    }
    assert served - {WHO_AM_I} == set(SCOPES)


@pytest.mark.parametrize("path", METHODS)
def test_a_token_with_every_other_scope_is_told_which_one_it_lacks(admin: Party, path: str) -> None:
    others = [scope for scope in META_SCOPES if scope != SCOPES[path]]
    caller = admin.party(unique(), others)
    answer = refused(caller.send, path, REQUESTS[path].SerializeToString())
    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    assert (answer.reason, answer.domain) == ("SCOPE_MISSING", "watchword")
    assert dict(answer.metadata) == {"scope": SCOPES[path]}


@pytest.mark.parametrize("path", METHODS)
def test_the_one_scope_is_enough_to_be_let_in(admin: Party, path: str) -> None:
    caller = admin.party(unique(), [SCOPES[path]])
    data = REQUESTS[path].SerializeToString()
    if path in STOPPED:
        assert refused(caller.send, path, data).reason == STOPPED[path]
    else:
        caller.send(path, data)


@pytest.mark.parametrize("path", METHODS)
def test_a_star_scope_is_not_a_meta_scope(admin: Party, path: str) -> None:
    caller = admin.party(unique(), ["*"])
    answer = refused(caller.send, path, REQUESTS[path].SerializeToString())
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


@pytest.mark.parametrize("path", [*METHODS, WHO_AM_I])
def test_no_token_is_refused(admin: Party, path: str) -> None:
    data = REQUESTS[path].SerializeToString() if path in REQUESTS else b""
    answer = refused(admin.send, path, data, metadata=())
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")


@pytest.mark.parametrize("path", [*METHODS, WHO_AM_I])
def test_a_revoked_callers_token_is_refused(admin: Party, path: str) -> None:
    caller = admin.party(unique(), ["watchword.*"])
    admin.revoke(token_id=caller.token_id)
    data = REQUESTS[path].SerializeToString() if path in REQUESTS else b""
    answer = refused(caller.send, path, data)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("audiences", [("*",), ("orders",), ("orders", "*"), ("watchword.orders",), ("Watchword",)])
def test_token_for_another_audience_is_refused(admin: Party, path: str, audiences: tuple[str, ...]) -> None:
    # What a service received as a bearer token is of no use to it against Watchword, not even one that is good
    # everywhere: `watchword` has to be written out.
    caller = admin.party(unique(), ["watchword.*"], audiences=audiences)
    answer = refused(caller.send, path, REQUESTS[path].SerializeToString())
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


@pytest.mark.parametrize("audiences", [("*",), ("orders",)])
def test_whoever_only_received_a_token_cannot_rotate_it_nor_see_its_record(
    admin: Party, audiences: tuple[str, ...]
) -> None:
    caller = admin.party(unique(), audiences=audiences)
    assert refused(caller.rotate).reason == "TOKEN_INACTIVE"
    assert refused(caller.who_am_i).reason == "TOKEN_INACTIVE"


def test_a_token_for_watchword_among_others_is_accepted(admin: Party) -> None:
    caller = admin.party(unique(), ["watchword.read"], audiences=("orders", "watchword"))
    assert caller.list_scopes(pb.ListScopesRequest(page_size=1)).scopes


def test_an_inactive_caller_is_not_told_which_scope_it_would_need(admin: Party) -> None:
    caller = admin.party(unique())
    admin.revoke(token_id=caller.token_id)
    answer = refused(caller.list_scopes, pb.ListScopesRequest())
    assert (answer.code, answer.reason, dict(answer.metadata)) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "TOKEN_INACTIVE",
        {},
    )
    assert "watchword.read" not in answer.message


def test_a_method_that_does_not_exist_is_unimplemented(admin: Party) -> None:
    answer = refused(admin.send, TOKEN_SERVICE + "Mint", b"")
    assert answer.code is grpc.StatusCode.UNIMPLEMENTED


def test_presenting_the_whole_token_revokes_it_without_any_scope(admin: Party) -> None:
    caller = admin.party(unique())
    found = admin.issue(unique())
    assert caller.revoke(token=found.secret).revoked_count == 1
    assert caller.revoke(token=caller.secret).revoked_count == 1
    answer = refused(caller.revoke, token=found.secret)
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")
