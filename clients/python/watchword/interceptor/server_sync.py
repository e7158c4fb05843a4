"""The interceptor for thread-pool servers: finds the token and the rule, and puts a guard around the handler."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from watchword.bearer import BearerError, bearer_token
from watchword.identity import Identity
from watchword.interceptor.blocking import Decide, abort, guard
from watchword.interceptor.denial import BY_BEARER_REASON, RULE_MISSING, UNAVAILABLE, UNIMPLEMENTED, Denial, judge
from watchword.policy import Policy
from watchword.verifier.contract import BlockingVerifier, VerifierUnavailableError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_LOGGER: Final = logging.getLogger("watchword.interceptor")


class ServerInterceptor(grpc.ServerInterceptor):
    """Admits calls whose bearer token `verifier` finds active and sufficient for `policy`'s rule, and no others.

    As watchword.aio.ServerInterceptor, with the same answers, for `grpc.server(...)`. Judgements are made in the pool's
    threads. A stream whose token ends is ended with UNAUTHENTICATED, or with CANCELLED where the handler reads its
    requests in a thread of its own.
    """

    def __init__(self, verifier: BlockingVerifier, policy: Policy) -> None:
        if inspect.iscoroutinefunction(verifier.check):
            raise TypeError("a thread-pool server needs a blocking verifier, such as watchword.sync.RemoteVerifier")
        self._verifier: Final = verifier
        self._rules: Final = policy.rules

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.ServerInterceptor. Never answers None to a caller without an active token."""
        rule = self._rules.get(handler_call_details.method)
        if rule is not None and rule.public:
            return continuation(handler_call_details)
        try:
            token = bearer_token(handler_call_details.invocation_metadata)
        except BearerError as error:
            return _refusal(None, BY_BEARER_REASON[error.reason])
        if rule is None:
            return _refusal(_decider(self._verifier, token, ()), RULE_MISSING)
        decide = _decider(self._verifier, token, rule.scopes)
        handler = continuation(handler_call_details)
        if handler is None:
            return _refusal(decide, UNIMPLEMENTED)
        return guard(handler, decide)


def _decider(verifier: BlockingVerifier, token: str, scopes: tuple[str, ...]) -> Decide:
    def decide() -> Identity | Denial:
        try:
            return judge(verifier.check(token, scopes))
        except VerifierUnavailableError:
            return UNAVAILABLE
        except Exception as error:
            # The type alone: a verifier's text is not known to be free of secrets.
            _LOGGER.error("a verifier failed with %s; the call is refused", type(error).__name__)
            return UNAVAILABLE

    return decide


def _refusal(decide: Decide | None, denial: Denial) -> Handler:
    # On the wire an answer without messages looks the same for all four kinds of call.
    def refuse(_: object, context: Any) -> NoReturn:
        outcome = None if decide is None else decide()
        abort(context, outcome if isinstance(outcome, Denial) else denial)

    return grpc.stream_stream_rpc_method_handler(refuse)
