"""The interceptor for grpc.aio servers: finds the token and the rule, and puts a guard around the handler.

The judgement itself is the guard's, after the request arrived: a call opened with a good token and left waiting must
not be worth anything once the token is revoked. Junk is refused here, before anything of it is read.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

import grpc

from watchword.bearer import BearerError, bearer_token
from watchword.interceptor.blocking import behaviour_of
from watchword.interceptor.call_aio import Call, Offers, refuse_unread
from watchword.interceptor.denial import BY_BEARER_REASON, RULE_MISSING, UNIMPLEMENTED, Denial
from watchword.interceptor.guard_aio import GuardedUnary, is_async
from watchword.interceptor.guard_aio_stream import stream_stream, stream_unary, unary_stream
from watchword.interceptor.guard_aio_threaded import threaded
from watchword.policy import Policy, Rule
from watchword.verifier.contract import Verifier

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Guard: TypeAlias = Callable[[Handler, Offers, str, tuple[str, ...]], Handler]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Admits calls whose bearer token `verifier` finds active and sufficient for `policy`'s rule, and no others.

    Put it first in the server's interceptors: those before it see unauthenticated calls. In the handler,
    current_identity() says who calls. On a stream every message, in or out, is judged anew, and the call ends when the
    token does.

    Calls with a token that is bound to networks or to a client certificate have to match: the connection's peer, or
    whom one of `trusted_proxies` (CIDR prefixes) names in `x-forwarded-for`, and the certificate of the handshake.
    Those that do not are told TOKEN_INACTIVE.

    Refusals carry `google.rpc.ErrorInfo` (domain `watchword`): UNAUTHENTICATED with TOKEN_MISSING, TOKEN_MALFORMED,
    TOKEN_AMBIGUOUS or TOKEN_INACTIVE; PERMISSION_DENIED with SCOPE_MISSING and the scope, or RULE_MISSING for a method
    the policy was not told of; UNAVAILABLE with VERIFIER_UNAVAILABLE and `RetryInfo`.
    """

    def __init__(self, verifier: Verifier, policy: Policy, *, trusted_proxies: Iterable[str] = ()) -> None:
        if not inspect.iscoroutinefunction(verifier.check):
            raise TypeError(
                "grpc.aio needs a verifier whose check is a coroutine, such as watchword.aio.RemoteVerifier"
            )
        self._offers: Final = Offers(verifier, trusted_proxies)
        self._methods: Final = {path: _Method(rule) for path, rule in policy.rules.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor. Never answers None to a caller without an active token."""
        method = self._methods.get(handler_call_details.method)
        if method is not None and method.is_public:
            return await continuation(handler_call_details)
        try:
            token = bearer_token(handler_call_details.invocation_metadata)
        except BearerError as error:
            return _refusal(BY_BEARER_REASON[error.reason])
        if method is None:
            return _judged_refusal(Call(self._offers, token, ()), RULE_MISSING)
        handler = await continuation(handler_call_details)
        if handler is None:
            return _judged_refusal(Call(self._offers, token, method.scopes), UNIMPLEMENTED)
        if method.handler is not handler:
            method.handler, method.guard = handler, _guard_for(handler)
        return method.guard(handler, self._offers, token, method.scopes)


class _Method:
    """A method's rule, and which guard suits its handler: looking into a handler costs more than the guard itself."""

    __slots__ = ("guard", "handler", "is_public", "scopes")

    def __init__(self, rule: Rule) -> None:
        self.is_public: Final = rule.public
        self.scopes: Final = rule.scopes
        self.handler: Handler | None = None
        self.guard: _Guard = GuardedUnary


def _guard_for(handler: Handler) -> _Guard:
    guard: Callable[[Handler, Call], Handler]
    if not is_async(behaviour_of(handler)):
        # grpc.aio runs handlers that are no coroutines in threads, where no context variable and no await reaches.
        guard = threaded(asyncio.get_running_loop())
    elif handler.request_streaming:
        guard = stream_stream if handler.response_streaming else stream_unary
    elif handler.response_streaming:
        guard = unary_stream
    else:
        return GuardedUnary
    return lambda handler, offers, token, scopes: guard(handler, Call(offers, token, scopes))


def _refusal(denial: Denial) -> Handler:
    # On the wire an answer without messages looks the same for all four kinds of call, and as a stream it is given
    # without waiting for a whole request.
    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await refuse_unread(context, denial)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _judged_refusal(call: Call, denial: Denial) -> Handler:
    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        outcome = await call.decide(context)
        await refuse_unread(context, outcome if isinstance(outcome, Denial) else denial)

    return grpc.stream_stream_rpc_method_handler(refuse)
