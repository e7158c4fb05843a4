"""The bearer token in blocking clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import grpc

from watchword.bearer import AUTHORIZATION
from watchword.credentials.plugin import (
    bearer_value,
    channel_credentials,
    channel_options,
    source_of,
)
from watchword.credentials.source import TokenSource, TokenSourceError
from watchword.credentials.target import refuse_plaintext_on_network, refuse_proxy

_Continuation = Callable[[Any, Any], Any]


def bearer_interceptor(
    token: TokenSource | str, target: str, *, allow_plaintext_on_network_danger: bool = False
) -> BearerInterceptor:
    """An interceptor for `grpc.intercept_channel(grpc.insecure_channel(target), ...)`, for all four kinds of call.

    Encrypted channels take call_credentials instead. Raises PlaintextRefusedError if `target` is not on this machine,
    or if the environment names a proxy that the channel would lead through; connect makes one that does not.
    A call raises TokenSourceError if there is no token, or if it brings an `authorization` entry of its own.
    """
    if not allow_plaintext_on_network_danger:
        refuse_plaintext_on_network(target)
        refuse_proxy(target)
    return BearerInterceptor(source_of(token))


def connect(
    target: str,
    *,
    token: TokenSource | str,
    root_certificates: bytes | None = None,
    private_key: bytes | None = None,
    certificate_chain: bytes | None = None,
    keepalive_seconds: float | None = None,
    options: Sequence[tuple[str, Any]] = (),
    allow_plaintext_on_network_danger: bool = False,
) -> grpc.Channel:
    """A channel to `target` that sends `token` with every call; watchword.aio.connect says when it uses TLS."""
    credentials = channel_credentials(
        target,
        token,
        root_certificates=root_certificates,
        private_key=private_key,
        certificate_chain=certificate_chain,
        allow_plaintext_on_network_danger=allow_plaintext_on_network_danger,
    )
    if credentials is not None:
        return grpc.secure_channel(
            target, credentials, options=channel_options(target, keepalive_seconds, options, plaintext=False)
        )
    bearer = BearerInterceptor(source_of(token))
    plain = grpc.insecure_channel(target, options=channel_options(target, keepalive_seconds, options, plaintext=True))
    return grpc.intercept_channel(plain, bearer)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class BearerInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Made by bearer_interceptor, which checks where the token goes."""

    def __init__(self, source: TokenSource) -> None:
        self._source: Final = source

    def _with_token(self, details: Any) -> Any:
        metadata = list(details.metadata or ())
        if any(key == AUTHORIZATION for key, _ in metadata):
            raise TokenSourceError("the call already carries an authorization entry; servers refuse two")
        metadata.append((AUTHORIZATION, bearer_value(self._source)))
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    def intercept_unary_unary(self, continuation: _Continuation, client_call_details: Any, request: Any) -> Any:
        """See grpc.UnaryUnaryClientInterceptor."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: _Continuation, client_call_details: Any, request: Any) -> Any:
        """See grpc.UnaryStreamClientInterceptor."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See grpc.StreamUnaryClientInterceptor."""
        return continuation(self._with_token(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """See grpc.StreamStreamClientInterceptor."""
        return continuation(self._with_token(client_call_details), request_iterator)
