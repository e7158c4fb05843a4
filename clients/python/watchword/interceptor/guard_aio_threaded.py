"""The guard around a plain function in a grpc.aio server: the handler runs in a thread, the verifier does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import grpc

from watchword.identity import Identity
from watchword.interceptor import blocking
from watchword.interceptor.call_aio import Call
from watchword.interceptor.denial import UNAVAILABLE, Denial

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# A verifier has a deadline of its own. This one is for a loop that has stopped.
DECISION_SECONDS_MAX: Final = 30.0


def threaded(loop: asyncio.AbstractEventLoop) -> Callable[[Handler, Call], Handler]:
    """A guard whose judgements are made on `loop`, where the verifier lives."""

    def guard(handler: Handler, call: Call) -> Handler:
        def decide() -> Identity | Denial:
            try:
                return asyncio.run_coroutine_threadsafe(call.decide(), loop).result(DECISION_SECONDS_MAX)
            except (TimeoutError, RuntimeError, asyncio.CancelledError):
                return UNAVAILABLE

        return blocking.guard(handler, decide)

    return guard
