"""An echo service of either stack over TLS with client certificates, TLS without, or in the clear, and calls to it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import trustme

from tests.client.echo import POLICY, SERVICE, bearer, generic, refusal, sync_call
from watchword import current_identity
from watchword.aio import ServerInterceptor as AioInterceptor
from watchword.sync import ServerInterceptor as SyncInterceptor

ADMITTED = "admitted"
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def sha256(certificate: trustme.LeafCert) -> bytes:
    """As OpenSSL would say it, not as the library does."""
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    return hashlib.sha256(der).digest()


@dataclass
class Authority:
    """Who makes certificates."""

    ca: trustme.CA = field(default_factory=trustme.CA)

    def client(self, name: str = "orders") -> trustme.LeafCert:
        return self.ca.issue_cert(f"{name}.example")

    def server_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        issued = self.ca.issue_cert("localhost")
        pair = (issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        roots = self.ca.cert_pem.bytes() if mutual else None
        return grpc.ssl_server_credentials([pair], roots, require_client_auth=mutual)

    def channel_credentials(self, client: trustme.LeafCert | None) -> grpc.ChannelCredentials:
        roots = self.ca.cert_pem.bytes()
        if client is None:
            return grpc.ssl_channel_credentials(roots)
        chain = b"".join(pem.bytes() for pem in client.cert_chain_pems)
        return grpc.ssl_channel_credentials(roots, client.private_key_pem.bytes(), chain)


# Handlers of every form. Each answers with the subject it sees.


async def unary(request: bytes, context: Any) -> bytes:
    return current_identity().subject.encode()


def unary_function(request: bytes, context: Any) -> bytes:
    return current_identity().subject.encode()


async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield current_identity().subject.encode()


def down_function(request: bytes, context: Any) -> Iterator[bytes]:
    yield current_identity().subject.encode()


async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    async for _ in requests:
        pass
    return current_identity().subject.encode()


def up_function(requests: Iterator[bytes], context: Any) -> bytes:
    list(requests)
    return current_identity().subject.encode()


async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield current_identity().subject.encode()


def both_function(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for _ in requests:
        yield current_identity().subject.encode()


FUNCTIONS: Mapping[str, Any] = {
    "Unary": unary_function,
    "Down": down_function,
    "Up": up_function,
    "Both": both_function,
}
HANDLERS: Mapping[str, Mapping[str, Any]] = {
    "aio": {"Unary": unary, "Down": down, "Up": up, "Both": both},
    "aio-threaded": FUNCTIONS,
    "sync": FUNCTIONS,
}


@asynccontextmanager
async def serving(
    stack: str,
    verifier: Any,
    *,
    credentials: grpc.ServerCredentials | None = None,
    trusted_proxies: tuple[str, ...] = (),
) -> AsyncIterator[int]:
    """The service on a loopback port of its own."""
    handlers = generic(HANDLERS[stack])
    if stack == "sync":
        with _sync_server(SyncInterceptor(verifier, POLICY, trusted_proxies=trusted_proxies), handlers) as server:
            port = _listen(server, credentials)
            server.start()
            yield port
        return
    aio_server = grpc.aio.server(interceptors=[AioInterceptor(verifier, POLICY, trusted_proxies=trusted_proxies)])
    aio_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = _listen(aio_server, credentials)
    await aio_server.start()
    try:
        yield port
    finally:
        await aio_server.stop(None)


@contextmanager
def _sync_server(interceptor: SyncInterceptor, handlers: dict[str, Any]) -> Iterator[grpc.Server]:
    with futures.ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, interceptors=[interceptor])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            yield server
        finally:
            server.stop(None).wait()


def _listen(server: Any, credentials: grpc.ServerCredentials | None) -> int:
    port: int = (
        server.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else server.add_secure_port("127.0.0.1:0", credentials)
    )
    return port


@contextmanager
def connected(port: int, credentials: grpc.ChannelCredentials | None = None) -> Iterator[grpc.Channel]:
    """A connection of its own, in the clear without credentials."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    target = f"127.0.0.1:{port}"
    channel = (
        grpc.insecure_channel(target, options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options)
    )
    with channel:
        yield channel


async def outcome(
    port: int,
    method: str,
    token: str,
    *forwarded_for: str,
    credentials: grpc.ChannelCredentials | None = None,
) -> object:
    """What becomes of a call: ADMITTED, or its status and reason."""
    metadata = (*bearer(token), *(("x-forwarded-for", value) for value in forwarded_for))

    def call() -> object:
        with connected(port, credentials) as channel:
            try:
                answers = sync_call(channel, method, metadata)
            except grpc.RpcError as error:
                return refusal(error)
        assert answers == [b"alice"]
        return ADMITTED

    return await asyncio.to_thread(call)
