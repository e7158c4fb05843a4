"""A service of plain bytes with one method of each kind, for servers and channels of both stacks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc

from watchword import AUTHENTICATED, Policy
from watchword.aio import ServerInterceptor as AioInterceptor
from watchword.status import error_info
from watchword.sync import ServerInterceptor as SyncInterceptor

SERVICE = "test.Echo"
KINDS = ("Unary", "Down", "Up", "Both")
SECONDS_MAX = 20.0
MAKERS: Mapping[str, Any] = {
    "Unary": grpc.unary_unary_rpc_method_handler,
    "Down": grpc.unary_stream_rpc_method_handler,
    "Up": grpc.stream_unary_rpc_method_handler,
    "Both": grpc.stream_stream_rpc_method_handler,
}
POLICY = Policy(
    table={
        **{f"/{SERVICE}/{kind}": ["echo.use"] for kind in KINDS},
        f"/{SERVICE}/Unserved": AUTHENTICATED,
    }
)


def path(method: str) -> str:
    return method if method.startswith("/") else f"/{SERVICE}/{method}"


def generic(behaviours: Mapping[str, Any], deserializer: Any = None) -> dict[str, Any]:
    """Handlers by method name, from behaviours by method name; the name begins with its kind."""
    return {
        name: MAKERS[next(kind for kind in KINDS if name.startswith(kind))](behaviour, deserializer)
        for name, behaviour in behaviours.items()
    }


@asynccontextmanager
async def aio_echo(
    verifier: Any, behaviours: Mapping[str, Any], policy: Policy = POLICY, *, registered: bool = True
) -> AsyncIterator[Any]:
    server = grpc.aio.server(interceptors=[AioInterceptor(verifier, policy)])
    handlers = dict(behaviours) if _are_handlers(behaviours) else generic(behaviours)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if registered:
        server.add_registered_method_handlers(SERVICE, handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


@contextmanager
def sync_echo(
    verifier: Any, behaviours: Mapping[str, Any], policy: Policy = POLICY, threads_count: int = 8
) -> Iterator[Any]:
    with futures.ThreadPoolExecutor(threads_count) as pool:
        server = grpc.server(pool, interceptors=[SyncInterceptor(verifier, policy)])
        handlers = dict(behaviours) if _are_handlers(behaviours) else generic(behaviours)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_registered_method_handlers(SERVICE, handlers)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            server.stop(None).wait()


def _are_handlers(behaviours: Mapping[str, Any]) -> bool:
    return all(isinstance(one, grpc.RpcMethodHandler) for one in behaviours.values())


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", "Bearer " + token),)


async def aio_call(channel: Any, method: str, metadata: Any, kind: str | None = None) -> list[bytes]:
    """Calls with one request and gives all responses."""
    kind = kind or next(one for one in KINDS if method.startswith(one))
    arguments: dict[str, Any] = {"metadata": metadata, "timeout": SECONDS_MAX}
    if kind == "Unary":
        return [await channel.unary_unary(path(method))(b"1", **arguments)]
    if kind == "Up":
        return [await channel.stream_unary(path(method))(iter([b"1"]), **arguments)]
    if kind == "Down":
        return [one async for one in channel.unary_stream(path(method))(b"1", **arguments)]
    return [one async for one in channel.stream_stream(path(method))(iter([b"1"]), **arguments)]


def sync_call(channel: Any, method: str, metadata: Any, kind: str | None = None) -> list[bytes]:
    """Calls with one request and gives all responses."""
    kind = kind or next(one for one in KINDS if method.startswith(one))
    arguments: dict[str, Any] = {"metadata": metadata, "timeout": SECONDS_MAX}
    if kind == "Unary":
        return [channel.unary_unary(path(method))(b"1", **arguments)]
    if kind == "Up":
        return [channel.stream_unary(path(method))(iter([b"1"]), **arguments)]
    if kind == "Down":
        return list(channel.unary_stream(path(method))(b"1", **arguments))
    return list(channel.stream_stream(path(method))(iter([b"1"]), **arguments))


def refusal(error: grpc.RpcError) -> tuple[grpc.StatusCode, str | None]:
    """The status of a failed call and its reason."""
    info = error_info(error)
    return error.code(), info.reason if info is not None else None
