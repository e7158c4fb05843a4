"""The guard around a unary handler of a grpc.aio server: the hot path."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import grpc

from watchword.identity import CURRENT
from watchword.interceptor.call_aio import Call, Context, read_request, refuse
from watchword.interceptor.denial import Denial

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def is_async(behaviour: object) -> bool:
    """Whether grpc.aio runs this behaviour on the event loop. The question is gRPC's own, in its own words."""
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def unary_unary(handler: Handler, call: Call) -> Handler:
    """The handler, judged once per call: after the request arrived and before it is parsed."""
    behaviour: Any = handler.unary_unary
    deserialize = handler.request_deserializer

    async def guarded(raw: bytes, context: Context) -> Any:
        outcome = await call.decide()
        if isinstance(outcome, Denial):
            await refuse(context, outcome)
        request = await read_request(context, deserialize, raw)
        # grpc.aio gives every call a task, so this ends with the call.
        CURRENT.set(outcome)
        return await behaviour(request, context)

    return grpc.unary_unary_rpc_method_handler(guarded, None, handler.response_serializer)
