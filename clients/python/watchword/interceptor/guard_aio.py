"""The guard around a unary handler of a grpc.aio server: the hot path."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import grpc

from watchword.identity import CURRENT
from watchword.interceptor.call_aio import Call, Context, Offers, refuse
from watchword.interceptor.denial import REQUEST_UNREADABLE
from watchword.verifier.verdict import Active

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def is_async(behaviour: object) -> bool:
    """Whether grpc.aio runs this behaviour on the event loop. The question is gRPC's own, in its own words."""
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


class GuardedUnary(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in its stub alone
    """The handler, judged once per call: after the request arrived and before it is parsed.

    One is made for every call, which costs less as an object of its own than through gRPC's constructors. Where the
    verifier knows the token it is all that is made.
    """

    request_streaming = False
    response_streaming = False
    # Judging comes first, so the message is parsed here.
    request_deserializer = None
    unary_stream = None
    stream_unary = None
    stream_stream = None

    def __init__(self, handler: Handler, offers: Offers, token: str, scopes: tuple[str, ...]) -> None:
        self._handler = handler
        self._offers = offers
        self._token = token
        self._scopes = scopes
        self.response_serializer = handler.response_serializer

    async def unary_unary(self, raw: Any, context: Context) -> Any:  # type: ignore[override]  # there an attribute
        """The guarded behaviour."""
        verdict = self._offers.check_now(self._token, self._scopes)
        if isinstance(verdict, Active):
            identity = verdict.identity
        else:
            call = Call(self._offers, self._token, self._scopes)
            identity = call.admitted(verdict, context) or await call.admit_asking(context)
        handler: Any = self._handler
        request = raw
        if handler.request_deserializer is not None:
            try:
                request = handler.request_deserializer(raw)
            except Exception:
                # gRPC's way of failing would send the parser's own words to the caller.
                await refuse(context, REQUEST_UNREADABLE)
        # grpc.aio gives every call a task, so this ends with the call.
        CURRENT.set(identity)
        return await handler.unary_unary(request, context)
