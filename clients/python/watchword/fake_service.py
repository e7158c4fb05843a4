"""A FakeAuthority behind a real gRPC port, to test what goes over the wire. Public through watchword.testing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration

from watchword.fake_authority import (
    GRACE_SECONDS_DEFAULT,
    TTL_SECONDS_DEFAULT,
    FakeAuthority,
    Issued,
    TokenNotLiveError,
    TokenRotatedError,
)
from watchword.fake_watch import FakeWatch
from watchword.identity import Identity, current_identity
from watchword.interceptor.denial import RETRY_DELAY_SECONDS
from watchword.interceptor.server_sync import ServerInterceptor
from watchword.lease import LEASE_SECONDS_DEFAULT
from watchword.policy import AUTHENTICATED, Policy
from watchword.protobuf_time import seconds_of, timestamp_of
from watchword.scope import RESERVED
from watchword.status import details_trailer, reason_detail, retry_detail
from watchword.token import MalformedTokenError
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc
from watchword.v1 import verifier_service_pb2_grpc as verifier_pb_grpc
from watchword.verifier.contract import VerifierUnavailableError
from watchword.verifier.verdict import Bound, Inactive, Insufficient

# Each watch holds one.
THREADS_COUNT: Final = 24
INACTIVE_SECONDS: Final = 60
GRACE_SECONDS: Final = 1.0
_SERVICE: Final = "/watchword.v1.TokenService/"


@contextmanager
def serve(
    authority: FakeAuthority,
    address: str = "127.0.0.1:0",
    *,
    lease_seconds: float = LEASE_SECONDS_DEFAULT,
    usage_every_seconds: float | None = None,
    watch: FakeWatch | None = None,
) -> Iterator[str]:
    """Serves `authority` in the clear on a loopback port and gives `host:port`, until the end of the block.

    Of TokenService there are Issue, Validate, BatchValidate, Revoke (of a whole token), Rotate (of the caller's own),
    Narrow, WhoAmI and RegisterScopes (which only agrees); callers need tokens as they do with Watchword, for the
    audience `watchword`. Grants, kinds and owners are not imitated.

    Caching verifiers may watch and are granted leases of `lease_seconds`. Revoke answers when each of them knows, or
    its lease has run out; FakeAuthority.revoke does not wait for them. Up to 16 may watch at a time. With
    `usage_every_seconds` they report so often what they admitted from memory, to FakeAuthority.reported. `watch`,
    instead of both, is for tests that make watches fail.
    """
    watch = watch or FakeWatch(authority, lease_seconds, usage_every_seconds)
    policy = Policy(
        table={
            _SERVICE + "Issue": ["watchword.issue"],
            _SERVICE + "Validate": ["watchword.validate"],
            _SERVICE + "BatchValidate": ["watchword.validate"],
            _SERVICE + "Revoke": AUTHENTICATED,
            _SERVICE + "Rotate": AUTHENTICATED,
            _SERVICE + "Narrow": ["watchword.revoke"],
            _SERVICE + "WhoAmI": AUTHENTICATED,
            _SERVICE + "RegisterScopes": ["watchword.register"],
            "/watchword.v1.VerifierService/Watch": ["watchword.validate"],
        }
    )
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS_COUNT),
        interceptors=[ServerInterceptor(authority.blocking_verifier(RESERVED), policy)],
        options=[("grpc.so_reuseport", 0)],
    )
    # The generated base answers UNIMPLEMENTED for what is not imitated.
    servicer = _TokenService(authority, watch)  # type: ignore[abstract]
    pb_grpc.add_TokenServiceServicer_to_server(servicer, server)
    verifier_pb_grpc.add_VerifierServiceServicer_to_server(watch, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        server.stop(GRACE_SECONDS).wait()


class _TokenService(pb_grpc.TokenServiceServicer):
    def __init__(self, authority: FakeAuthority, watch: FakeWatch) -> None:
        self._authority: Final = authority
        self._watch: Final = watch

    def Issue(self, request: pb.IssueRequest, context: grpc.ServicerContext) -> pb.IssueResponse:
        self._refuse_in_outage(context)
        ttl_seconds = seconds_of(request.ttl) if request.HasField("ttl") else TTL_SECONDS_DEFAULT
        try:
            secret = self._authority.issue(
                request.subject,
                scopes=request.scopes,
                audiences=request.audiences,
                ttl_seconds=ttl_seconds,
                metadata=request.metadata,
                allowed_networks=request.allowed_networks,
                certificate_sha256=request.certificate_sha256,
            )
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        token = self._token(self._authority.present(secret))
        token.name = request.name
        return pb.IssueResponse(secret=secret, token=token)

    def Rotate(self, request: pb.RotateRequest, context: grpc.ServicerContext) -> pb.RotateResponse:
        self._refuse_in_outage(context)
        own = self._own()
        if request.token_id not in ("", own.identity.token_id):
            _abort(context, grpc.StatusCode.PERMISSION_DENIED, "the fake rotates own tokens only", "GRANT_MISSING")
        try:
            secret = self._authority.rotate(
                own.text.decode("ascii"),
                ttl_seconds=seconds_of(request.ttl) if request.HasField("ttl") else None,
                grace_seconds=seconds_of(request.grace) if request.HasField("grace") else GRACE_SECONDS_DEFAULT,
                request_id=request.request_id,
                attempt=request.attempt,
            )
        except TokenRotatedError as error:
            token_id = error.successor_id
            _abort(context, grpc.StatusCode.ALREADY_EXISTS, str(error), "TOKEN_ROTATED", token_id=token_id)
        except TokenNotLiveError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error), "TOKEN_NOT_LIVE")
        self._watch.wait_everywhere(self._authority.position)
        return pb.RotateResponse(
            secret=secret,
            token=self._token(self._authority.present(secret)),
            rotated=self._token(own),
            propagation=pb.PROPAGATION_COMPLETE,
        )

    def Narrow(self, request: pb.NarrowRequest, context: grpc.ServicerContext) -> pb.NarrowResponse:
        self._refuse_in_outage(context)
        try:
            narrowed = self._authority.narrow(
                request.token_id,
                remove_scopes=request.remove_scopes,
                ttl_seconds=seconds_of(request.ttl) if request.HasField("ttl") else None,
            )
        except TokenNotLiveError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error), "TOKEN_NOT_LIVE")
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._watch.wait_everywhere(self._authority.position)
        return pb.NarrowResponse(token=self._token(narrowed), propagation=pb.PROPAGATION_COMPLETE)

    def WhoAmI(self, request: pb.WhoAmIRequest, context: grpc.ServicerContext) -> pb.WhoAmIResponse:
        self._refuse_in_outage(context)
        return pb.WhoAmIResponse(token=self._token(self._own()))

    def Validate(self, request: pb.ValidateRequest, context: grpc.ServicerContext) -> pb.ValidateResponse:
        return self._validate(request, current_identity(), context)

    def BatchValidate(
        self, request: pb.BatchValidateRequest, context: grpc.ServicerContext
    ) -> pb.BatchValidateResponse:
        caller = current_identity()
        return pb.BatchValidateResponse(responses=[self._validate(one, caller, context) for one in request.requests])

    def Revoke(self, request: pb.RevokeRequest, context: grpc.ServicerContext) -> pb.RevokeResponse:
        self._refuse_in_outage(context)
        if request.WhichOneof("target") != "token":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the fake revokes whole tokens only")
        try:
            count = int(self._authority.revoke(request.token))
        except MalformedTokenError:
            count = 0
        verifiers_count = self._watch.wait_everywhere(self._authority.position)
        return pb.RevokeResponse(
            revoked_count=count,
            propagation=pb.PROPAGATION_COMPLETE,
            replicas_count=1,
            verifiers_count=verifiers_count,
        )

    def RegisterScopes(
        self, request: pb.RegisterScopesRequest, context: grpc.ServicerContext
    ) -> pb.RegisterScopesResponse:
        self._refuse_in_outage(context)
        return pb.RegisterScopesResponse(registered_count=len(request.scopes))

    def _validate(
        self, request: pb.ValidateRequest, caller: Identity, context: grpc.ServicerContext
    ) -> pb.ValidateResponse:
        # Before the verdict: it holds at this position, and perhaps at later ones.
        position = pb.Position(epoch=self._authority.epoch, number=self._authority.position)
        try:
            verdict = self._authority.judge(request.token, request.required_scopes, caller.subject)
        except VerifierUnavailableError:
            _abort_unavailable(context)
        # What holds for one call with a bound token need not hold for the next.
        cacheable = request.enforces_bindings or not isinstance(verdict, Bound)
        if isinstance(verdict, Bound):
            matches = verdict.bindings.match(request.client_ip, request.certificate_sha256)
            verdict = verdict.verdict if matches or request.enforces_bindings else Inactive()
        response = pb.ValidateResponse(position=position)
        if isinstance(verdict, Inactive):
            response.inactive.SetInParent()
            cacheable_for = Duration(seconds=INACTIVE_SECONDS)
        else:
            active = self._active(verdict.identity, request.enforces_bindings)
            cacheable_for = active.remaining
            if isinstance(verdict, Insufficient):
                response.insufficient.token.CopyFrom(active)
                response.insufficient.missing_scopes.extend(verdict.missing_scopes)
            else:
                response.active.CopyFrom(active)
        if cacheable:
            response.cacheable_for.CopyFrom(cacheable_for)
        return response

    def _active(self, identity: Identity, tells_bindings: bool) -> pb.ActiveToken:
        active = pb.ActiveToken(
            token_id=identity.token_id,
            subject=identity.subject,
            scopes=identity.scopes,
            audiences=identity.audiences,
            metadata=identity.metadata,
            remaining=Duration(seconds=int(self._authority.remaining_seconds(identity.token_id))),
        )
        issued = self._authority.find(identity.token_id)
        if tells_bindings and issued is not None and issued.bindings is not None:
            active.bindings.allowed_networks.extend(issued.allowed_networks)
            active.bindings.certificate_sha256 = issued.certificate_sha256
        return active

    def _own(self) -> Issued:
        """The caller's token, which the interceptor has just found."""
        issued = self._authority.find(current_identity().token_id)
        assert issued is not None
        return issued

    def _token(self, issued: Issued) -> pb.Token:
        identity = issued.identity
        remaining_seconds = self._authority.remaining_seconds(identity.token_id)
        return pb.Token(
            token_id=identity.token_id,
            subject=identity.subject,
            scopes=identity.scopes,
            audiences=identity.audiences,
            metadata=identity.metadata,
            kind=pb.TOKEN_KIND_SERVICE,
            created_at=timestamp_of(issued.created_at),
            expires_at=timestamp_of(time.time() + remaining_seconds),
            state=_state(issued, remaining_seconds),
            allowed_networks=issued.allowed_networks,
            certificate_sha256=issued.certificate_sha256,
            successor_id="" if issued.successor is None else issued.successor.identity.token_id,
        )

    def _refuse_in_outage(self, context: grpc.ServicerContext) -> None:
        try:
            self._authority.raise_if_unavailable()
        except VerifierUnavailableError:
            _abort_unavailable(context)


def _abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, message: str, reason: str, **metadata: str
) -> NoReturn:
    context.set_trailing_metadata(details_trailer(code, message, reason_detail(reason, **metadata)))
    context.abort(code, message)


def _abort_unavailable(context: grpc.ServicerContext) -> NoReturn:
    code, message = grpc.StatusCode.UNAVAILABLE, "the authority simulates an outage"
    context.set_trailing_metadata(
        details_trailer(code, message, reason_detail("DATABASE_UNAVAILABLE"), retry_detail(RETRY_DELAY_SECONDS))
    )
    context.abort(code, message)


def _state(issued: Issued, remaining_seconds: float) -> pb.TokenState.ValueType:
    if issued.revoked:
        return pb.TOKEN_STATE_REVOKED
    return pb.TOKEN_STATE_LIVE if remaining_seconds > 0 else pb.TOKEN_STATE_EXPIRED
