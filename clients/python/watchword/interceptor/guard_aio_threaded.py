"""The guard around a plain function in a grpc.aio server: the handler runs in a thread, the verifier does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from watchword.identity import Identity
from watchword.interceptor import blocking
from watchword.interceptor.call_aio import Call
from watchword.interceptor.denial import UNAVAILABLE, Denial
from watchword.verifier.contract import OpenStream

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# A verifier has a deadline of its own. This one is for a loop that has stopped.
DECISION_SECONDS_MAX: Final = 30.0

_T = TypeVar("_T")


def threaded(loop: asyncio.AbstractEventLoop) -> Callable[[Handler, Call], Handler]:
    """A guard whose judgements are made on `loop`, where the verifier lives."""

    def guard(handler: Handler, call: Call) -> Handler:
        return blocking.guard(handler, _ThreadedCall(call, loop))

    return guard


class _ThreadedCall:
    """A call on the loop, as its handler's thread sees it."""

    __slots__ = ("_call", "_loop")

    def __init__(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._loop = loop

    def decide(self, context: Any) -> Identity | Denial:
        try:
            future = asyncio.run_coroutine_threadsafe(self._call.decide(context), self._loop)
            return future.result(DECISION_SECONDS_MAX)
        except (TimeoutError, RuntimeError, asyncio.CancelledError):
            return UNAVAILABLE

    def open_stream(self, shut: Callable[[Denial], None]) -> OpenStream | None:
        opened = self._on_loop(lambda: self._call.open_stream(shut))
        return None if opened is None else _ClosedOnLoop(opened, self._loop)

    def end(self, context: Any, denial: Denial) -> None:
        # On the loop here. What grpc.aio hands to plain functions takes an abort from any thread but the loop's own.
        self._loop.run_in_executor(None, blocking.abort_quietly, context, denial)

    def _on_loop(self, action: Callable[[], _T]) -> _T:
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(action())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(DECISION_SECONDS_MAX)


class _ClosedOnLoop:
    __slots__ = ("_loop", "_opened")

    def __init__(self, opened: OpenStream, loop: asyncio.AbstractEventLoop) -> None:
        self._opened = opened
        self._loop = loop

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._opened.close)
