"""The client library at work with whatever versions are installed: every module imported, and calls of all four kinds
through both interceptors and both kinds of channel, tokens judged by both caching verifiers, and both that renew
themselves.

A program and not a test: the environments that run it have the base install of the library and nothing else.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio

import watchword
import watchword.aio
import watchword.sync
from watchword.identity import current_identity
from watchword.policy import Policy
from watchword.status import error_info
from watchword.testing import FakeAuthority, serve
from watchword.v1 import token_service_pb2, token_service_pb2_grpc
from watchword.verifier import Inactive

SERVICE = "compat.v1.Echo"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SECONDS_MAX = 20.0
MESSAGES = [b"a", b"b"]


def import_everything() -> int:
    """Imports every module of the library; how many."""
    names = [module.name for module in pkgutil.walk_packages(watchword.__path__, "watchword.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def policy() -> Policy:
    return Policy(table={f"/{SERVICE}/{kind}": ["echo.say"] for kind in KINDS})


def caller() -> bytes:
    return current_identity().subject.encode()


class AioEcho:
    """Each handler proves that it knows its caller."""

    async def unary_unary(self, request: bytes, _: object) -> bytes:
        return caller() + request

    async def unary_stream(self, request: bytes, _: object) -> AsyncIterator[bytes]:
        for _again in MESSAGES:
            yield caller() + request

    async def stream_unary(self, requests: AsyncIterator[bytes], _: object) -> bytes:
        return caller() + b"".join([request async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for request in requests:
            yield caller() + request


class SyncEcho:
    """As AioEcho, for the thread-pool server."""

    def unary_unary(self, request: bytes, _: object) -> bytes:
        return caller() + request

    def unary_stream(self, request: bytes, _: object) -> Iterator[bytes]:
        for _again in MESSAGES:
            yield caller() + request

    def stream_unary(self, requests: Iterator[bytes], _: object) -> bytes:
        return caller() + b"".join(requests)

    def stream_stream(self, requests: Iterator[bytes], _: object) -> Iterator[bytes]:
        for request in requests:
            yield caller() + request


EXPECTED: dict[str, Any] = {
    "unary_unary": b"alicea",
    "unary_stream": [b"alicea", b"alicea"],
    "stream_unary": b"aliceab",
    "stream_stream": [b"alicea", b"aliceb"],
}


def handlers(echo: object) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE, {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(echo, kind)) for kind in KINDS}
    )


def expect(found: object, expected: object, what: str) -> None:
    # Not an assert: python -O must not turn this program into one that always succeeds.
    if found != expected:
        raise SystemExit(f"{what}: expected {expected!r}, got {found!r}")


def expect_refusal(error: grpc.RpcError, code: grpc.StatusCode, reason: str, what: str) -> None:
    info = error_info(error)
    expect((error.code(), info and info.reason), (code, reason), what)


async def one_message(ended: asyncio.Event) -> AsyncIterator[bytes]:
    """And then silence until the call has ended. A grpc.aio client that is writing when its call is refused reports
    INTERNAL, whatever it was told; and it never ends the task that reads requests which nobody ends."""
    yield MESSAGES[0]
    await ended.wait()


async def aio_call(channel: grpc.aio.Channel, kind: str, *, refused: bool = False) -> Any:
    call, ended = getattr(channel, kind)(f"/{SERVICE}/{kind}"), asyncio.Event()
    requests = one_message(ended) if refused else iter(MESSAGES)
    answer = call(requests if kind.startswith("stream") else MESSAGES[0], timeout=SECONDS_MAX)
    try:
        return [one async for one in answer] if kind.endswith("stream") else await answer
    finally:
        ended.set()


def sync_call(channel: grpc.Channel, kind: str) -> Any:
    call = getattr(channel, kind)(f"/{SERVICE}/{kind}")
    answer = call(iter(MESSAGES) if kind.startswith("stream") else MESSAGES[0], timeout=SECONDS_MAX)
    return list(answer) if kind.endswith("stream") else answer


async def check_aio(authority: FakeAuthority) -> None:
    server = grpc.aio.server(interceptors=[watchword.aio.ServerInterceptor(authority.verifier("echo"), policy())])
    server.add_generic_rpc_handlers((handlers(AioEcho()),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    token = authority.issue("alice", scopes=["echo.*"], audiences=["echo"], allowed_networks=["127.0.0.0/8"])
    try:
        async with watchword.aio.connect(target, token=token) as channel:
            for kind in KINDS:
                expect(await aio_call(channel, kind), EXPECTED[kind], f"aio {kind}")
        for what, code, reason, other in refusals(authority, token):
            async with watchword.aio.connect(target, token=other) as channel:
                for kind in KINDS:
                    try:
                        await aio_call(channel, kind, refused=True)
                    except grpc.RpcError as error:
                        expect_refusal(error, code, reason, f"aio {kind}, {what}")
                    else:
                        raise SystemExit(f"aio {kind}: admitted with {what}")
    finally:
        await server.stop(0)


def check_sync(authority: FakeAuthority) -> None:
    interceptor = watchword.sync.ServerInterceptor(authority.blocking_verifier("echo"), policy())
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[interceptor])
    server.add_generic_rpc_handlers((handlers(SyncEcho()),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    token = authority.issue("alice", scopes=["echo.*"], audiences=["echo"], allowed_networks=["127.0.0.0/8"])
    try:
        with watchword.sync.connect(target, token=token) as channel:
            for kind in KINDS:
                expect(sync_call(channel, kind), EXPECTED[kind], f"sync {kind}")
        for what, code, reason, other in refusals(authority, token):
            with watchword.sync.connect(target, token=other) as channel:
                for kind in KINDS:
                    try:
                        sync_call(channel, kind)
                    except grpc.RpcError as error:
                        expect_refusal(error, code, reason, f"sync {kind}, {what}")
                    else:
                        raise SystemExit(f"sync {kind}: admitted with {what}")
    finally:
        server.stop(0).wait()


def refusals(authority: FakeAuthority, good: str) -> Iterator[tuple[str, grpc.StatusCode, str, str]]:
    """Tokens that must not be admitted, the good one among them once it is revoked."""
    weak = authority.issue("alice", scopes=["echo.listen"], audiences=["echo"])
    yield "a missing scope", grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", weak
    elsewhere = authority.issue("alice", scopes=["echo.*"], audiences=["echo"], allowed_networks=["10.0.0.0/8"])
    yield "another network", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE", elsewhere
    unproven = authority.issue("alice", scopes=["echo.*"], audiences=["echo"], certificate_sha256=bytes(32))
    yield "no certificate", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE", unproven
    foreign = authority.issue("alice", scopes=["echo.*"], audiences=["till"])
    yield "another audience", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE", foreign
    authority.revoke(good)
    yield "a revoked token", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE", good


async def check_caching_aio() -> None:
    authority = FakeAuthority()
    own, token = own_token(authority), authority.issue("alice")
    with serve(authority) as address:
        async with watchword.aio.connect(address, token=own) as channel:
            verifier = watchword.aio.CachingVerifier(channel, name="compat")
            try:
                await verifier.start()
                await asyncio.to_thread(wait_for_lease, verifier)
                before = await verifier.check(token, ())
                with authority.unavailable():
                    expect(await verifier.check(token, ()), before, "aio, from memory")
                await asyncio.to_thread(revoke, address, authority, token)
                expect(await verifier.check(token, ()), Inactive(), "aio, revoked")
            finally:
                await verifier.close()


def check_caching_sync() -> None:
    authority = FakeAuthority()
    own, token = own_token(authority), authority.issue("alice")
    with serve(authority) as address, watchword.sync.connect(address, token=own) as channel:
        verifier = watchword.sync.CachingVerifier(channel, name="compat")
        try:
            verifier.start()
            wait_for_lease(verifier)
            before = verifier.check(token, ())
            with authority.unavailable():
                expect(verifier.check(token, ()), before, "sync, from memory")
            revoke(address, authority, token)
            expect(verifier.check(token, ()), Inactive(), "sync, revoked")
        finally:
            verifier.close()


async def check_renewing_aio(folder: str) -> None:
    authority = FakeAuthority()
    token = watchword.aio.RenewingToken.file(short_lived(authority, folder))
    with serve(authority) as address:
        async with watchword.aio.connect(address, token=token) as channel, token.renewing(channel):
            await asyncio.to_thread(wait_for_renewal, token)


def check_renewing_sync(folder: str) -> None:
    authority = FakeAuthority()
    token = watchword.sync.RenewingToken.file(short_lived(authority, folder))
    with serve(authority) as address, watchword.sync.connect(address, token=token) as channel, token.renewing(channel):
        wait_for_renewal(token)


def short_lived(authority: FakeAuthority, folder: str) -> Path:
    path = Path(folder, "token")
    path.write_text(authority.issue(audiences=["watchword"], ttl_seconds=3.0))
    return path


def wait_for_renewal(token: watchword.aio.RenewingToken | watchword.sync.RenewingToken) -> None:
    give_up_at = time.monotonic() + SECONDS_MAX
    tick = threading.Event()
    while not token.status().renewals_count:
        expect(time.monotonic() < give_up_at, True, "a renewal in time")
        tick.wait(0.01)


def wait_for_lease(verifier: watchword.aio.CachingVerifier | watchword.sync.CachingVerifier) -> None:
    give_up_at = time.monotonic() + SECONDS_MAX
    tick = threading.Event()
    while not verifier.status().caching:
        expect(time.monotonic() < give_up_at, True, "a lease in time")
        tick.wait(0.01)


def own_token(authority: FakeAuthority) -> str:
    return authority.issue("echo", scopes=["watchword.validate"], audiences=["watchword"])


def revoke(address: str, authority: FakeAuthority, token: str) -> None:
    """Over the wire: the reply says that every verifier knows."""
    with watchword.sync.connect(address, token=own_token(authority)) as channel:
        reply = token_service_pb2_grpc.TokenServiceStub(channel).Revoke(token_service_pb2.RevokeRequest(token=token))
    expect(reply.verifiers_count, 1, "verifiers that know")


def check_generated_code() -> None:
    """Messages survive their own encoding, and the stub has the methods."""
    request = token_service_pb2.ValidateRequest(token="t", required_scopes=["orders.read"])
    expect(token_service_pb2.ValidateRequest.FromString(request.SerializeToString()), request, "round trip")
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        expect(hasattr(token_service_pb2_grpc.TokenServiceStub(channel), "Validate"), True, "stub")


def main() -> None:
    count = import_everything()
    check_generated_code()
    asyncio.run(check_aio(FakeAuthority()))
    check_sync(FakeAuthority())
    asyncio.run(check_caching_aio())
    check_caching_sync()
    with TemporaryDirectory() as folder:
        asyncio.run(check_renewing_aio(folder))
        check_renewing_sync(folder)
    found = ", ".join(f"{name} {version(name)}" for name in ("grpcio", "protobuf", "googleapis-common-protos"))
    sys.stdout.write(f"{found}: {count} modules, both interceptors, all four kinds of call, both caches, both renew\n")


if __name__ == "__main__":
    main()
