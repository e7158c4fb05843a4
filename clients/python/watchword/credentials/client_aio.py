"""The bearer token in grpc.aio clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

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

Details = grpc.aio.ClientCallDetails
_Continuation = Callable[[Details, Any], Awaitable[Any]]


def bearer_interceptors(
    token: TokenSource | str, target: str, *, allow_plaintext_on_network_danger: bool = False
) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors for `grpc.aio.insecure_channel(target, interceptors=...)` that put the token into every call.

    Encrypted channels take call_credentials instead. Raises PlaintextRefusedError if `target` is not on this machine,
    or if the environment names a proxy that the channel would lead through; connect makes one that does not.
    A call fails with TokenSourceError if there is no token, or if it brings an `authorization` entry of its own; that
    error is an AioRpcError too, as everything is that a call of grpc.aio fails with.
    """
    if not allow_plaintext_on_network_danger:
        refuse_plaintext_on_network(target)
        refuse_proxy(target)
    return _interceptors(source_of(token))


def _interceptors(source: TokenSource) -> list[grpc.aio.ClientInterceptor]:
    # grpc.aio takes one kind from each interceptor object, so there are four.
    return [_UnaryUnary(source), _UnaryStream(source), _StreamUnary(source), _StreamStream(source)]


def connect(
    target: str,
    *,
    token: TokenSource | str,
    root_certificates: bytes | None = None,
    private_key: bytes | None = None,
    certificate_chain: bytes | None = None,
    keepalive_seconds: float | None = None,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    allow_plaintext_on_network_danger: bool = False,
) -> grpc.aio.Channel:
    """A channel to `target` that sends `token` with every call.

    TLS wherever the target is not on this machine, or certificates (PEM) are given: without `root_certificates` with
    gRPC's own roots, with `private_key` and `certificate_chain` as a TLS client. Plaintext to this machine otherwise,
    and to others only with `allow_plaintext_on_network_danger`, meant for networks that encrypt below gRPC.

    `keepalive_seconds`, at least 10: how often the connection is tried while a call is open. Good to a Watchword: a
    verifier's watch is always open, and learns so that a connection is dead. Other servers end connections that are
    tried more often than every 300 s, unless they are told otherwise; so the default is longer.

    A target may list several servers (`ipv4:10.0.0.1:7600,10.0.0.2:7600`). All are then called by the first one's
    address; where their certificates are for another name, give that as the option `grpc.default_authority`.
    """
    credentials = channel_credentials(
        target,
        token,
        root_certificates=root_certificates,
        private_key=private_key,
        certificate_chain=certificate_chain,
        allow_plaintext_on_network_danger=allow_plaintext_on_network_danger,
    )
    if credentials is not None:
        return grpc.aio.secure_channel(
            target,
            credentials,
            options=channel_options(target, keepalive_seconds, options, plaintext=False),
            interceptors=list(interceptors),
        )
    bearer = _interceptors(source_of(token))
    return grpc.aio.insecure_channel(
        target,
        options=channel_options(target, keepalive_seconds, options, plaintext=True),
        interceptors=[*interceptors, *bearer],
    )


class _NoTokenError(grpc.aio.AioRpcError, TokenSourceError):
    """As gRPC's own for call credentials that fail. Older versions stumble over anything that is no AioRpcError."""

    def __init__(self, sentence: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), sentence)
        self._sentence: Final = sentence

    def __str__(self) -> str:
        return self._sentence


class _Bearer:
    def __init__(self, source: TokenSource) -> None:
        self._source: Final = source

    def _with_token(self, details: Details) -> Details:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if any(key == AUTHORIZATION for key, _ in metadata):
            raise _NoTokenError("the call already carries an authorization entry; servers refuse two")
        try:
            metadata.add(AUTHORIZATION, bearer_value(self._source))
        except TokenSourceError as error:
            raise _NoTokenError(str(error)) from None
        return Details(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


class _UnaryUnary(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: Details, request: Any
    ) -> Any:
        return await continuation(self._with_token(client_call_details), request)


class _UnaryStream(_Bearer, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: _Continuation, client_call_details: Details, request: Any
    ) -> Any:
        return await continuation(self._with_token(client_call_details), request)


class _StreamUnary(_Bearer, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: _Continuation, client_call_details: Details, request_iterator: Any
    ) -> Any:
        return await continuation(self._with_token(client_call_details), request_iterator)


class _StreamStream(_Bearer, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: _Continuation, client_call_details: Details, request_iterator: Any
    ) -> Any:
        return await continuation(self._with_token(client_call_details), request_iterator)
