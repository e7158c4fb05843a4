"""A FakeAuthority behind a real gRPC port, to test what goes over the wire. Public through watchword.testing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration

from watchword.fake_authority import TTL_SECONDS_DEFAULT, FakeAuthority
from watchword.fake_watch import FakeWatch
from watchword.identity import Identity, current_identity
from watchword.interceptor.denial import RETRY_DELAY_SECONDS
from watchword.interceptor.server_sync import ServerInterceptor
from watchword.lease import LEASE_SECONDS_DEFAULT
from watchword.policy import AUTHENTICATED, Policy
from watchword.scope import RESERVED
from watchword.status import details_trailer, reason_detail, retry_detail
from watchword.token import ID_LENGTH, MalformedTokenError
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc
from watchword.v1 import verifier_service_pb2_grpc as verifier_pb_grpc
from watchword.verifier.contract import VerifierUnavailableError
from watchword.verifier.verdict import Active, Inactive

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
    watch: FakeWatch | None = None,
) -> Iterator[str]:
    """Serves `authority` in the clear on a loopback port and gives `host:port`, until the end of the block.

    Of TokenService there are Issue, Validate, BatchValidate, Revoke (of a whole token) and RegisterScopes (which only
    agrees); callers need tokens as they do with Watchword, for the audience `watchword`. Grants are not imitated.

    Caching verifiers may watch and are granted leases of `lease_seconds`. Revoke answers when each of them knows, or
    its lease has run out; FakeAuthority.revoke does not wait for them. Up to 16 may watch at a time. `watch`, instead
    of `lease_seconds`, is for tests that make watches fail.
    """
    watch = watch or FakeWatch(authority, lease_seconds)
    policy = Policy(
        table={
            _SERVICE + "Issue": ["watchword.issue"],
            _SERVICE + "Validate": ["watchword.validate"],
            _SERVICE + "BatchValidate": ["watchword.validate"],
            _SERVICE + "Revoke": AUTHENTICATED,
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
        ttl_seconds = request.ttl.ToTimedelta().total_seconds() if request.HasField("ttl") else TTL_SECONDS_DEFAULT
        try:
            secret = self._authority.issue(
                request.subject,
                scopes=request.scopes,
                audiences=request.audiences,
                ttl_seconds=ttl_seconds,
                metadata=request.metadata,
            )
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        token = pb.Token(
            token_id=secret[len(self._authority.token_prefix) :][:ID_LENGTH],
            subject=request.subject,
            scopes=request.scopes,
            audiences=request.audiences,
            name=request.name,
            metadata=request.metadata,
            state=pb.TOKEN_STATE_LIVE,
        )
        return pb.IssueResponse(secret=secret, token=token)

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
        if isinstance(verdict, Inactive):
            cacheable_for = Duration(seconds=INACTIVE_SECONDS)
            return pb.ValidateResponse(inactive=pb.InactiveToken(), position=position, cacheable_for=cacheable_for)
        active = _active(verdict.identity, self._authority.remaining_seconds(verdict.identity.token_id))
        if isinstance(verdict, Active):
            return pb.ValidateResponse(active=active, position=position, cacheable_for=active.remaining)
        insufficient = pb.InsufficientToken(token=active, missing_scopes=verdict.missing_scopes)
        return pb.ValidateResponse(insufficient=insufficient, position=position, cacheable_for=active.remaining)

    def _refuse_in_outage(self, context: grpc.ServicerContext) -> None:
        try:
            self._authority.raise_if_unavailable()
        except VerifierUnavailableError:
            _abort_unavailable(context)


def _abort_unavailable(context: grpc.ServicerContext) -> NoReturn:
    code, message = grpc.StatusCode.UNAVAILABLE, "the authority simulates an outage"
    context.set_trailing_metadata(
        details_trailer(code, message, reason_detail("DATABASE_UNAVAILABLE"), retry_detail(RETRY_DELAY_SECONDS))
    )
    context.abort(code, message)


def _active(identity: Identity, remaining_seconds: float) -> pb.ActiveToken:
    return pb.ActiveToken(
        token_id=identity.token_id,
        subject=identity.subject,
        scopes=identity.scopes,
        audiences=identity.audiences,
        metadata=identity.metadata,
        remaining=Duration(seconds=int(remaining_seconds)),
    )
