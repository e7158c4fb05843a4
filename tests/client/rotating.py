"""A service that rotates tokens, as far as its clients can tell, and fails in every way that a test asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from watchword.bearer import bearer_token
from watchword.protobuf_time import timestamp_of
from watchword.status import details_trailer, reason_detail, retry_detail
from watchword.token import format_token_id, new_token, new_token_id
from watchword.v1 import token_service_pb2 as pb


@dataclass(slots=True)
class Made:
    """One token."""

    secret: str = field(repr=False)
    token_id: str
    created_at: float
    expires_at: float
    kind: pb.TokenKind.ValueType = pb.TOKEN_KIND_SERVICE
    successor: Made | None = None
    request_id: str = ""
    revoked: bool = False

    def message(self) -> pb.Token:
        return pb.Token(
            token_id=self.token_id,
            created_at=timestamp_of(self.created_at),
            expires_at=timestamp_of(self.expires_at),
            kind=self.kind,
            successor_id=self.successor.token_id if self.successor else "",
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call is to fail."""

    code: grpc.StatusCode
    reason: str = ""
    retry_seconds: float | None = None
    after: bool = False
    """Only once it has done what it was asked: the answer is lost."""


class Rotating:
    """Knows the tokens that were made here. `refuse` says what becomes of the next call of a method."""

    def __init__(self, *, life_seconds: float = 10.0, grace_seconds: float = 5.0) -> None:
        self.life_seconds = life_seconds
        self.grace_seconds = grace_seconds
        self.refuse: Callable[[str], Refusal | None] = lambda method: None
        self.secret_of: Callable[[Made], str] = lambda made: made.secret
        self.before: Callable[[str], object] = lambda method: None
        self.calls: list[str] = []
        self.requests: list[pb.RotateRequest] = []
        self._lock = threading.Lock()
        self._made: dict[str, Made] = {}

    def make(
        self,
        life_seconds: float | None = None,
        *,
        age_seconds: float = 0.0,
        kind: pb.TokenKind.ValueType = pb.TOKEN_KIND_SERVICE,
    ) -> Made:
        """A token that was made `age_seconds` ago."""
        created_at = time.time() - age_seconds
        expires_at = created_at + (self.life_seconds if life_seconds is None else life_seconds)
        token = new_token(new_token_id(int(expires_at * 1000)))
        made = Made(token.text.decode(), format_token_id(token.token_id), created_at, expires_at, kind)
        self._made[made.secret] = made
        return made

    def is_live(self, secret: str) -> bool:
        """Whether a call with it would be admitted."""
        made = self._made.get(secret)
        return made is not None and not made.revoked and time.time() < made.expires_at

    def lineage(self, first: Made) -> list[Made]:
        """The token and its successors."""
        found = [first]
        while (successor := found[-1].successor) is not None:
            found.append(successor)
        return found

    def count(self, method: str) -> int:
        return self.calls.count(method)

    @property
    def secrets(self) -> list[str]:
        """All that were ever made."""
        return list(self._made)

    def who_am_i(self, request: pb.WhoAmIRequest, context: grpc.ServicerContext) -> pb.WhoAmIResponse:
        refusal = self._admit("WhoAmI", context)
        response = pb.WhoAmIResponse(token=self._caller(context).message())
        if refusal:
            _abort(context, refusal)
        return response

    def rotate(self, request: pb.RotateRequest, context: grpc.ServicerContext) -> pb.RotateResponse:
        refusal = self._admit("Rotate", context)
        with self._lock:
            self.requests.append(request)
            made = self._caller(context)
            if request.token_id:
                _abort(context, Refusal(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING"))
            if made.successor is not None:
                if made.request_id != request.request_id:
                    _abort(context, Refusal(grpc.StatusCode.ALREADY_EXISTS, "TOKEN_ROTATED"), made.successor.token_id)
                made.successor.revoked = True
            life_seconds = request.ttl.ToTimedelta().total_seconds() if request.HasField("ttl") else self.life_seconds
            grace_seconds = (
                request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else self.grace_seconds
            )
            if made.kind == pb.TOKEN_KIND_SESSION:
                life_seconds = made.expires_at - time.time()
            made.successor = self.make(life_seconds, kind=made.kind)
            made.request_id = request.request_id
            made.expires_at = min(made.expires_at, time.time() + grace_seconds)
            response = pb.RotateResponse(
                secret=self.secret_of(made.successor), token=made.successor.message(), rotated=made.message()
            )
        if refusal:
            _abort(context, refusal)
        return response

    def _admit(self, method: str, context: grpc.ServicerContext) -> Refusal | None:
        self.calls.append(method)
        self.before(method)
        refusal = self.refuse(method)
        if refusal is not None and not refusal.after:
            _abort(context, refusal)
        return refusal

    def _caller(self, context: grpc.ServicerContext) -> Made:
        metadata: Any = context.invocation_metadata()
        secret = bearer_token((entry.key, entry.value) for entry in metadata)
        if not self.is_live(secret):
            _abort(context, Refusal(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE"))
        return self._made[secret]


@contextmanager
def serve_rotating(service: Rotating, address: str = "127.0.0.1:0") -> Iterator[str]:
    """Serves it; where."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "WhoAmI": grpc.unary_unary_rpc_method_handler(
            service.who_am_i, pb.WhoAmIRequest.FromString, pb.WhoAmIResponse.SerializeToString
        ),
        "Rotate": grpc.unary_unary_rpc_method_handler(
            service.rotate, pb.RotateRequest.FromString, pb.RotateResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("watchword.v1.TokenService", methods),))
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def _abort(context: grpc.ServicerContext, refusal: Refusal, token_id: str = "") -> NoReturn:
    if refusal.reason:
        details: list[Any] = [
            reason_detail(refusal.reason, **({"token_id": token_id} if token_id else {})),
            *([retry_detail(refusal.retry_seconds)] if refusal.retry_seconds is not None else []),
        ]
        context.set_trailing_metadata(details_trailer(refusal.code, "refused", *details))
    context.abort(refusal.code, "refused")
