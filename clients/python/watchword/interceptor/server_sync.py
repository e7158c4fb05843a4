"""The interceptor for thread-pool servers: finds the token and the rule, and puts a guard around the handler."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from watchword.bearer import BearerError, bearer_token
from watchword.identity import Identity
from watchword.interceptor.blocking import abort, guard
from watchword.interceptor.denial import (
    BY_BEARER_REASON,
    RULE_MISSING,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Denial,
    denial_of,
    judge,
)
from watchword.interceptor.origin import Origin, Origins
from watchword.policy import Policy
from watchword.verifier.contract import BlockingVerifier, OpenStream, StreamGates, VerifierUnavailableError
from watchword.verifier.verdict import Bound, Verdict

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_LOGGER: Final = logging.getLogger("watchword.interceptor")


class ServerInterceptor(grpc.ServerInterceptor):
    """Admits calls whose bearer token `verifier` finds active and sufficient for `policy`'s rule, and no others.

    As watchword.aio.ServerInterceptor, with the same answers, for `grpc.server(...)`. Judgements are made in the pool's
    threads. A stream whose token ends is ended with UNAUTHENTICATED at its next message, or with CANCELLED where the
    handler reads its requests in a thread of its own, and where the verifier learns of the end before a message comes.
    """

    def __init__(self, verifier: BlockingVerifier, policy: Policy, *, trusted_proxies: Iterable[str] = ()) -> None:
        if inspect.iscoroutinefunction(verifier.check):
            raise TypeError("a thread-pool server needs a blocking verifier, such as watchword.sync.RemoteVerifier")
        self._offers: Final = _Offers(verifier, trusted_proxies)
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
        call = _Call(self._offers, token, () if rule is None else rule.scopes)
        if rule is None:
            return _refusal(call, RULE_MISSING)
        handler = continuation(handler_call_details)
        if handler is None:
            return _refusal(call, UNIMPLEMENTED)
        return guard(handler, call)


class _Offers:
    """A verifier, what it offers beyond `check`, and where calls come from."""

    __slots__ = ("check", "gates", "origins")

    def __init__(self, verifier: BlockingVerifier, trusted_proxies: Iterable[str]) -> None:
        self.check: Final = verifier.check
        self.gates: Final = verifier if isinstance(verifier, StreamGates) else None
        self.origins: Final = Origins(trusted_proxies, verifier)


class _Call:
    """A call's token and what it has to cover. Without a `repr` of its own that could show the token."""

    __slots__ = ("_offers", "_origin", "_scopes", "_token")

    def __init__(self, offers: _Offers, token: str, scopes: tuple[str, ...]) -> None:
        self._offers = offers
        self._token = token
        self._scopes = scopes
        self._origin: Origin | None = None

    def decide(self, context: Any) -> Identity | Denial:
        offers = self._offers
        try:
            verdict: Verdict = offers.check(self._token, self._scopes, peer=offers.origins.peer(context))
            if isinstance(verdict, Bound):
                if self._origin is None:
                    self._origin = offers.origins.of(context)
                verdict = offers.origins.resolve(verdict, self._scopes, self._origin)
            return judge(verdict)
        except VerifierUnavailableError:
            return UNAVAILABLE
        except Exception as error:
            # The type alone: a verifier's text is not known to be free of secrets.
            _LOGGER.error("a verifier failed with %s; the call is refused", type(error).__name__)
            return UNAVAILABLE

    def open_stream(self, shut: Callable[[Denial], None]) -> OpenStream | None:
        gates = self._offers.gates
        if gates is None:
            return None
        return gates.open_stream(self._token, self._scopes, lambda verdict: shut(denial_of(verdict)))

    def end(self, context: Any, denial: Denial) -> None:
        # An abort from another thread than the handler's would let the next message through, and reach the client
        # only when the handler's thread comes back to gRPC.
        context.cancel()


def _refusal(call: _Call | None, denial: Denial) -> Handler:
    # On the wire an answer without messages looks the same for all four kinds of call.
    def refuse(_: object, context: Any) -> NoReturn:
        outcome = None if call is None else call.decide(context)
        abort(context, outcome if isinstance(outcome, Denial) else denial)

    return grpc.stream_stream_rpc_method_handler(refuse)
