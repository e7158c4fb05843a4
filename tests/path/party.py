"""Who takes part in an end-to-end test: callers with a token of their own, and what they are told when refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ParamSpec
from uuid import uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from watchword import status
from watchword.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    fleet_service_pb2_grpc,
    subject_service_pb2,
    subject_service_pb2_grpc,
    token_service_pb2_grpc,
)
from watchword.v1 import token_service_pb2 as pb

P = ParamSpec("P")

CALL_SECONDS_MAX = 20
TOKEN_SERVICE = "/watchword.v1.TokenService/"
SUBJECT_SERVICE = "/watchword.v1.SubjectService/"
AUDIT_SERVICE = "/watchword.v1.AuditService/"


def unique(word: str = "it") -> str:
    """A name, scope segment or subject that no other test uses."""
    return f"{word}{uuid4().hex[:16]}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call, with its details unpacked."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]
    descriptions: tuple[str, ...]
    retry_seconds: float | None
    details_bytes: int


def refused(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Refusal:
    """What a call that has to fail says."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return refusal_of(caught.value)


def code_of(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> grpc.StatusCode:
    """How a call ends that may end either way."""
    try:
        call(*args, **kwargs)
    except grpc.RpcError as error:
        return refusal_of(error).code
    return grpc.StatusCode.OK


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What a failed call says."""
    assert isinstance(error, grpc.Call)
    info = status.error_info(error)
    violations = status.field_violations(error)
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason if info is not None else "",
        domain=info.domain if info is not None else "",
        metadata=dict(info.metadata) if info is not None else {},
        fields=tuple(violation.field for violation in violations),
        descriptions=tuple(violation.description for violation in violations),
        retry_seconds=status.retry_delay_seconds(error),
        details_bytes=sum(len(value) for key, value in error.trailing_metadata() or () if key == status.DETAILS_KEY),
    )


class Party:
    """A caller with a token. Every call is bounded in time."""

    def __init__(self, channel: grpc.Channel, secret: str, token_id: str = "") -> None:
        self.channel = channel
        self.secret = secret
        self.token_id = token_id
        self.metadata = (("authorization", f"Bearer {secret}"),)
        self.tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.subjects = subject_service_pb2_grpc.SubjectServiceStub(channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(channel)

    def issue(
        self,
        subject: str,
        audiences: Iterable[str] = ("anyone",),
        scopes: Iterable[str] = (),
        *,
        grants: Iterable[pb.Grant] = (),
        ttl: Duration | None = None,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        timeout: float = CALL_SECONDS_MAX,
    ) -> pb.IssueResponse:
        """Issue."""
        request = pb.IssueRequest(
            subject=subject,
            audiences=audiences,
            scopes=scopes,
            grants=grants,
            ttl=ttl,
            name=name,
            metadata=metadata or {},
            request_id=request_id,
        )
        return self.tokens.Issue(request, metadata=self.metadata, timeout=timeout)

    def make(self, **fields: object) -> pb.IssueResponse:
        """Issue with any fields; a token for the administrator where none says otherwise."""
        request = pb.IssueRequest(**{"subject": unique(), "audiences": ["admin"], **fields})  # type: ignore[arg-type]
        return self.tokens.Issue(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def party(
        self,
        subject: str,
        scopes: Iterable[str] = (),
        *,
        grants: Iterable[pb.Grant] = (),
        audiences: Iterable[str] = ("watchword",),
    ) -> Party:
        """Another caller of Watchword, with a token issued here."""
        made = self.issue(subject, audiences, scopes, grants=grants)
        return Party(self.channel, made.secret, made.token.token_id)

    def register(self, *names: str) -> int:
        """RegisterScopes."""
        request = pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=name) for name in names])
        answer = self.tokens.RegisterScopes(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)
        return answer.registered_count

    def validate(
        self,
        token: str,
        *required: str,
        client_ip: str = "",
        certificate_sha256: bytes = b"",
        enforces_bindings: bool = False,
        reports_uses: bool = False,
    ) -> pb.ValidateResponse:
        """Validate."""
        request = pb.ValidateRequest(
            token=token,
            required_scopes=required,
            client_ip=client_ip,
            certificate_sha256=certificate_sha256,
            enforces_bindings=enforces_bindings,
            reports_uses=reports_uses,
        )
        return self.tokens.Validate(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def verdict(self, token: str, *required: str) -> str:
        """Validate's verdict alone."""
        return self.validate(token, *required).WhichOneof("verdict") or ""

    def batch(self, *tokens: str) -> pb.BatchValidateResponse:
        """BatchValidate."""
        request = pb.BatchValidateRequest(requests=[pb.ValidateRequest(token=token) for token in tokens])
        return self.tokens.BatchValidate(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def revoke(
        self, request: pb.RevokeRequest | None = None, *, timeout: float = CALL_SECONDS_MAX, **fields: str
    ) -> pb.RevokeResponse:
        """Revoke, by a whole request or by one target."""
        if request is None:
            request = pb.RevokeRequest(**fields)  # type: ignore[arg-type]  # the targets are all strings
        return self.tokens.Revoke(request, metadata=self.metadata, timeout=timeout)

    def rotate(
        self, request: pb.RotateRequest | None = None, *, timeout: float = CALL_SECONDS_MAX
    ) -> pb.RotateResponse:
        """Rotate; by default the calling token."""
        return self.tokens.Rotate(request or pb.RotateRequest(), metadata=self.metadata, timeout=timeout)

    def narrow(self, request: pb.NarrowRequest) -> pb.NarrowResponse:
        """Narrow."""
        return self.tokens.Narrow(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def who_am_i(self) -> pb.Token:
        """WhoAmI."""
        return self.tokens.WhoAmI(pb.WhoAmIRequest(), metadata=self.metadata, timeout=CALL_SECONDS_MAX).token

    def block(self, subject: str, reason: str = "", *, force: bool = False) -> subject_service_pb2.BlockSubjectResponse:
        """BlockSubject."""
        request = subject_service_pb2.BlockSubjectRequest(subject=subject, reason=reason, force=force)
        return self.subjects.BlockSubject(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def unblock(self, subject: str) -> bool:
        """UnblockSubject; whether it was blocked."""
        request = subject_service_pb2.UnblockSubjectRequest(subject=subject)
        answer = self.subjects.UnblockSubject(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)
        return answer.was_blocked

    def blocked(
        self, request: subject_service_pb2.ListBlockedSubjectsRequest
    ) -> subject_service_pb2.ListBlockedSubjectsResponse:
        """ListBlockedSubjects."""
        return self.subjects.ListBlockedSubjects(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def get(self, request: pb.GetTokenRequest) -> pb.GetTokenResponse:
        """GetToken."""
        return self.tokens.GetToken(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def record(self, token_id: str) -> pb.Token:
        """GetToken by id, the record alone."""
        return self.get(pb.GetTokenRequest(token_id=token_id)).token

    def list_tokens(self, request: pb.ListTokensRequest) -> pb.ListTokensResponse:
        """ListTokens."""
        return self.tokens.ListTokens(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def list_scopes(self, request: pb.ListScopesRequest) -> pb.ListScopesResponse:
        """ListScopes."""
        return self.tokens.ListScopes(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def events(self, request: audit_service_pb2.ListEventsRequest) -> audit_service_pb2.ListEventsResponse:
        """ListEvents."""
        return self.audit.ListEvents(request, metadata=self.metadata, timeout=CALL_SECONDS_MAX)

    def send(self, path: str, data: bytes, metadata: Iterable[tuple[str, str | bytes]] | None = None) -> bytes:
        """Any bytes to any method, with any metadata; the answer's bytes."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path, _as_it_is, _as_it_is)
        given = self.metadata if metadata is None else tuple(metadata)
        return call(data, metadata=given, timeout=CALL_SECONDS_MAX)


def _as_it_is(data: bytes) -> bytes:
    return data


def administrator(watchword: Watchword) -> Party:
    """The server's administrator."""
    return Party(watchword.admin.channel, watchword.admin_token)


def grant(scopes: str = "*", subjects: str = "*", audiences: str = "*") -> pb.Grant:
    """A grant, its patterns parted by spaces."""
    return pb.Grant(scopes=scopes.split(), subjects=subjects.split(), audiences=audiences.split())
