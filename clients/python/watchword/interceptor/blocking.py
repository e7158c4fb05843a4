"""The guards around handlers that run in threads: those of the thread-pool server, and plain functions in grpc.aio.

The judgement is made in the handler's thread, never in the interceptor's: the thread-pool server intercepts all calls
on one thread, which a lookup would hold up. For the same reason the identity is set around the handler here, in a
context of its own that no later call of the thread inherits.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import grpc

from watchword.identity import CURRENT, Identity
from watchword.interceptor.denial import REQUEST_UNREADABLE, Denial
from watchword.verifier.contract import OpenStream

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# grpc.ServicerContext, or what grpc.aio gives to plain functions.
Context = Any

_END: Final = object()


class Call(Protocol):
    """One call under judgement, from the handler's thread."""

    def decide(self, context: Context) -> Identity | Denial:
        """Judges the token now."""
        ...

    def open_stream(self, shut: Callable[[Denial], None]) -> OpenStream | None:
        """Has `shut` called when the token ends, by a verifier that learns of it."""
        ...

    def end(self, context: Context, denial: Denial) -> None:
        """Ends the call, from whatever thread `shut` is called on; does not block it."""
        ...


class _EndedError(grpc.aio.AbortError):
    """The call has ended with a denial."""


class Gate:
    """What stands between a handler in a thread and its messages. Once shut it stays shut."""

    __slots__ = ("_call", "_context", "_denial", "_thread")

    def __init__(self, call: Call, context: Context) -> None:
        self._call = call
        self._context = context
        self._denial: Denial | None = None
        self._thread = threading.get_ident()

    def admit(self) -> Identity:
        """Judges the token for what comes next; ends the call and raises if it is refused."""
        outcome = self._denial or self._call.decide(self._context)
        if isinstance(outcome, Denial):
            self._denial = outcome
            self._end(outcome)
        # Another thread of this call may have been refused while this one was looking.
        if self._denial is not None:
            self._end(self._denial)
        return outcome

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the call is ended as soon as its token ends, also while its handler waits."""
        opened = self._call.open_stream(self._shut)
        try:
            yield
        finally:
            if opened is not None:
                opened.close()

    def _shut(self, denial: Denial) -> None:
        if self._denial is None:
            self._denial = denial
            self._call.end(self._context, denial)

    def _end(self, denial: Denial) -> NoReturn:
        if threading.get_ident() != self._thread and hasattr(self._context, "cancel"):
            # A handler that reads in a thread of its own: gRPC would send an abort only when the handler's thread comes
            # back to it, and let the next message through. Cancelling ends the call at once.
            self._context.cancel()
        abort(self._context, denial)


def abort(context: Context, denial: Denial) -> NoReturn:
    """Ends the call with `denial`; raises."""
    context.set_trailing_metadata(denial.trailers)
    context.abort(denial.code, denial.message)
    # What grpc.aio hands to plain functions ends the call and returns.
    raise _EndedError(denial.message)


def abort_quietly(context: Context, denial: Denial) -> None:
    """As abort, for whoever has nobody to raise to."""
    with suppress(Exception):
        abort(context, denial)


def guard(handler: Handler, call: Call) -> Handler:
    """The handler of any kind, with every message in or out judged; a unary call once, when its request arrived."""
    behaviour = behaviour_of(handler)
    run: Any = _streaming(handler, behaviour, call) if handler.response_streaming else _single(handler, behaviour, call)
    # gRPC reads this wish of a handler off the function itself.
    pool = getattr(behaviour, "experimental_thread_pool", None)
    if pool is not None:
        run.experimental_thread_pool = pool
    return _MAKERS[handler.request_streaming, handler.response_streaming](run, None, handler.response_serializer)


def _single(handler: Handler, behaviour: Any, call: Call) -> Callable[[Any, Context], Any]:
    def unary(raw: Any, context: Context) -> Any:
        gate = Gate(call, context)
        within = _context_of(gate.admit())
        return within.run(behaviour, _request(handler, raw, gate, context), context)

    def stream(raw: Any, context: Context) -> Any:
        gate = Gate(call, context)
        with gate.watched():
            within = _context_of(gate.admit())
            response = within.run(behaviour, _request(handler, raw, gate, context), context)
            gate.admit()
            return response

    return stream if handler.request_streaming else unary


def _streaming(handler: Handler, behaviour: Any, call: Call) -> Callable[[Any, Context], Iterator[Any]]:
    def admitted(raw: Any, context: Context) -> Iterator[Any]:
        gate = Gate(call, context)
        with gate.watched():
            within = _context_of(gate.admit())
            responses = iter(within.run(behaviour, _request(handler, raw, gate, context), context))
            try:
                while (response := within.run(next, responses, _END)) is not _END:
                    gate.admit()
                    yield response
            finally:
                close = getattr(responses, "close", None)
                if close is not None:
                    within.run(close)

    def run(raw: Any, context: Context) -> Iterator[Any]:
        try:
            yield from admitted(raw, context)
        except _EndedError:
            # grpc.aio has ended the call already, and nobody there takes an exception from this thread.
            return

    return run


def _context_of(identity: Identity) -> contextvars.Context:
    within = contextvars.copy_context()
    within.run(CURRENT.set, identity)
    return within


def _request(handler: Handler, raw: Any, gate: Gate, context: Context) -> Any:
    if handler.request_streaming:
        return _Admitted(raw, gate, context, handler.request_deserializer)
    return _read(raw, context, handler.request_deserializer)


_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Any:
    """The function that the service's author wrote."""
    if handler.request_streaming:
        return handler.stream_stream if handler.response_streaming else handler.stream_unary
    return handler.unary_stream if handler.response_streaming else handler.unary_unary


class _Admitted:
    """The caller's messages, each judged when it has arrived."""

    __slots__ = ("_context", "_deserialize", "_gate", "_requests")

    def __init__(
        self, requests: Iterable[bytes], gate: Gate, context: Context, deserialize: Callable[[bytes], Any] | None
    ) -> None:
        self._requests = iter(requests)
        self._gate = gate
        self._context = context
        self._deserialize = deserialize

    def __iter__(self) -> _Admitted:
        return self

    def __next__(self) -> Any:
        raw = next(self._requests)
        self._gate.admit()
        return _read(raw, self._context, self._deserialize)

    next = __next__


def _read(raw: Any, context: Context, deserialize: Callable[[bytes], Any] | None) -> Any:
    if deserialize is None:
        return raw
    try:
        return deserialize(raw)
    except Exception:
        abort(context, REQUEST_UNREADABLE)
