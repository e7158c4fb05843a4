"""The guards around the streaming handlers of a grpc.aio server: every message, in or out, is a decision.

Handlers come in two forms, generators that yield and coroutines that use `context.read` and `context.write`, and a
handler may mix them. So the guard hands over a guarded context and a guarded iterator, and writes itself what a
generator yields.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, TypeAlias

import grpc

from watchword.identity import CURRENT
from watchword.interceptor.call_aio import Call, Context, read_request
from watchword.interceptor.context_aio import GuardedContext
from watchword.interceptor.gate_aio import Gate

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Deserializer = Callable[[bytes], Any] | None


def unary_stream(handler: Handler, call: Call) -> Handler:
    """One request in, judged when it arrived; each response judged before it is written."""
    behaviour: Any = handler.unary_stream
    deserialize = handler.request_deserializer

    async def guarded(raw: bytes, context: Context) -> None:
        with Gate(call, context):
            identity = await call.admit(context)
            request = await read_request(context, deserialize, raw)
            CURRENT.set(identity)
            guarded_context = GuardedContext(context, call, None)
            await _write_out(behaviour(request, guarded_context), guarded_context)

    return grpc.unary_stream_rpc_method_handler(guarded, None, handler.response_serializer)


def stream_unary(handler: Handler, call: Call) -> Handler:
    """Judged at the start, at each request that came in, and before the one response goes out."""
    behaviour: Any = handler.stream_unary
    deserialize = handler.request_deserializer

    async def guarded(requests: AsyncIterable[bytes], context: Context) -> Any:
        with Gate(call, context):
            CURRENT.set(await call.admit_unread(context))
            guarded_context = GuardedContext(context, call, deserialize)
            response = await behaviour(_admitted(requests, context, call, deserialize), guarded_context)
            await call.admit(context)
            return response

    return grpc.stream_unary_rpc_method_handler(guarded, None, handler.response_serializer)


def stream_stream(handler: Handler, call: Call) -> Handler:
    """Judged at the start, at each request that came in, and before each response goes out."""
    behaviour: Any = handler.stream_stream
    deserialize = handler.request_deserializer

    async def guarded(requests: AsyncIterable[bytes], context: Context) -> None:
        with Gate(call, context):
            CURRENT.set(await call.admit_unread(context))
            guarded_context = GuardedContext(context, call, deserialize)
            admitted = _admitted(requests, context, call, deserialize)
            await _write_out(behaviour(admitted, guarded_context), guarded_context)

    return grpc.stream_stream_rpc_method_handler(guarded, None, handler.response_serializer)


async def _admitted(
    requests: AsyncIterable[bytes], context: Context, call: Call, deserialize: _Deserializer
) -> AsyncIterator[Any]:
    async for raw in requests:
        await call.admit(context)
        yield await read_request(context, deserialize, raw)


async def _write_out(responses: Any, context: GuardedContext) -> None:
    if not hasattr(responses, "__aiter__"):
        await responses
        return
    try:
        async for response in responses:
            await context.write(response)
    finally:
        # Left to the garbage collector, the handler's own clean-up would run late and in another task.
        close = getattr(responses, "aclose", None)
        if close is not None:
            await close()
