"""The way of every call, as a list: boundary, permit, bearer, decode, read, caller, answer, encode.

It is wrapped around each method at registration and not installed as gRPC interceptors, which would cost a chain of
coroutines per call. Authentication comes before anything about the request is told: a caller without a token learns
nothing, not even that its request was malformed. The caller's own token and the tokens that the request presents are
read in one snapshot, so a check of a check costs no second trip; only a large request has its caller looked up first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from watchword.bearer import bearer_token
from watchword.network import TrustedProxies
from watchword.token import MalformedTokenError, ParsedToken, parse_token
from watchword_server.answer.callers import authenticate
from watchword_server.answer.errors import CallerUnknownError, DeadlineTooNearError, FieldsInvalidError
from watchword_server.answer.proof import Digests
from watchword_server.request.access import Access
from watchword_server.request.evidence import evidence_of
from watchword_server.request.status import Answer, answer_for, draining, internal, overloaded
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Reads, Snapshot

R = TypeVar("R", bound=Message)
_log = logging.getLogger(__name__)
_CANCELLED: Final = 1

# A write needs at least this much of the deadline: less, and the caller will not hear how it ended.
WRITE_SECONDS_MIN: Final = 0.005
# What is decoded before the caller is known: a batch of some 400 tokens. A message unpacks to 50 times its bytes and
# more (two bytes make an empty submessage), so the largest one would cost 200 MB and a tenth of a second of everybody's
# time, for a token that anyone can make up.
UNPROVED_BYTES_MAX: Final = 32 * 1024
# Of larger ones, so many at a time: their callers are known and may still mean harm.
LARGE_CALLS_MAX: Final = 2


class Meter(Protocol):
    """What counts one method's calls."""

    def finished(self, code: int, seconds: float) -> None:
        """A call ended with this gRPC status number."""
        ...


class Permits:
    """How many calls may be under way at once. The native transport has no maximum_concurrent_rpcs."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = 0
        self._draining = False

    def refuse_calls(self) -> None:
        """No more permits: the server is going away, and another one may take the call."""
        self.limit = 0
        self._draining = True

    def refusal(self) -> Answer:
        """What a call hears that gets no permit."""
        return draining() if self._draining else overloaded()


class Call(NamedTuple, Generic[R]):
    """A decoded, authenticated call.

    `tokens` are those that the request presents, in order, None for text that is not a token; `snapshot` holds the rows
    of those that exist.
    """

    caller: TokenRecord
    request: R
    tokens: Sequence[ParsedToken | None]
    snapshot: Snapshot
    peer: Callable[[], str]
    """The caller's network address; asked for only where it is written down."""
    seconds_left: Callable[[], float | None] = lambda: None
    """Until the caller's deadline; None without one."""

    @property
    def actor(self) -> Actor:
        """The caller as the audit log has it."""
        return Actor(self.caller.subject, self.caller.token_id, self.peer())


@dataclass(frozen=True, slots=True)
class Method(Generic[R]):
    """One RPC: how to decode it, which tokens a request presents, and what answers it."""

    path: str
    request_type: type[R]
    answer: Callable[[Call[R]], Awaitable[Message]]
    tokens_in: Callable[[R], Sequence[str]] = lambda request: ()
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every method's way leads through."""

    store: Reads
    digests: Digests
    permits: Permits
    token_prefix: str
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    """Whose word is taken for where a caller with a bound token is."""
    large_reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_CALLS_MAX))
    large_writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_CALLS_MAX))
    """Of their own: a write may wait for a lock, and a large check must not wait for that."""


Handler = Callable[[bytes, Any], Awaitable[Message]]


def handler(method: Method[R], access: Access, surroundings: Surroundings, meter: Meter) -> Handler:
    """The behaviour to register for a method: `async def (request bytes, context) -> response message`."""
    permits, clock = surroundings.permits, time.perf_counter
    carry_out = _carry_out(method, access, surroundings)

    async def behaviour(data: bytes, context: Any) -> Message:
        began = clock()
        if permits.under_way >= permits.limit:
            answer = permits.refusal()
        else:
            permits.under_way += 1
            try:
                response = await carry_out(data, context)
                meter.finished(0, clock() - began)
                return response
            except asyncio.CancelledError:
                meter.finished(_CANCELLED, clock() - began)
                raise
            except Exception as error:
                answer = boundary(error, method.path)
            finally:
                permits.under_way -= 1
        meter.finished(answer[0].value[0], clock() - began)
        code, message, trailer = answer
        await context.abort(code, message, trailer)
        raise AssertionError("abort raises")

    return behaviour


def boundary(error: Exception, path: str) -> Answer:
    """The outermost catch: whatever is not foreseen leaves the process as one fixed sentence."""
    answer = answer_for(error)
    if answer is None:
        _log.error("%s failed", path, exc_info=error)
        return internal()
    if answer[0] is grpc.StatusCode.UNAVAILABLE:
        _log.warning("%s is unavailable: %s", path, type(error.__cause__ or error).__name__)
    return answer


def _carry_out(method: Method[R], access: Access, surroundings: Surroundings) -> Handler:
    store, digests, prefix = surroundings.store, surroundings.digests, surroundings.token_prefix
    answer, tokens_in, decode = method.answer, method.tokens_in, method.request_type.FromString
    large = surroundings.large_writes if method.writes else surroundings.large_reads
    malformed = f"not a {method.request_type.DESCRIPTOR.full_name}"
    fixed = access.scopes == access.scopes_always
    proxies = surroundings.proxies

    async def carry_out(data: bytes, context: Any) -> Message:
        bearer = bearer_of(context.invocation_metadata(), prefix)
        if len(data) <= UNPROVED_BYTES_MAX:
            return await proceed(data, context, bearer)
        # test_a_large_request_of_a_caller_unknown_is_refused_undecoded
        snapshot = await store.read([bearer.token_id])
        authenticate(
            digests,
            bearer,
            snapshot,
            required=access.scopes_always,
            evidence=lambda: evidence_of(context, proxies),
        )
        async with large:
            return await proceed(data, context, bearer)

    async def proceed(data: bytes, context: Any, bearer: ParsedToken) -> Message:
        fault: FieldsInvalidError | None = None
        request: R | None = None
        tokens: Sequence[ParsedToken | None] = ()
        try:
            request = decode(data)
            tokens = [_parse(text, prefix) for text in tokens_in(request)]
        except DecodeError:
            fault = FieldsInvalidError([("request", malformed)])
        except FieldsInvalidError as error:
            fault = error
        wanted = [bearer.token_id]
        wanted += [token.token_id for token in tokens if token is not None]
        snapshot = await store.read(wanted)
        required = access.scopes if fixed or request is None else access.scopes_for(request)
        caller = authenticate(
            digests, bearer, snapshot, required=required, evidence=lambda: evidence_of(context, proxies)
        )
        if fault is not None:
            raise fault
        assert request is not None
        if method.writes:
            # None is no deadline; zero is one that is over.
            seconds_left = context.time_remaining()
            if seconds_left is not None and seconds_left < WRITE_SECONDS_MIN:
                raise DeadlineTooNearError
        return await answer(Call(caller, request, tokens, snapshot, context.peer, context.time_remaining))

    return carry_out


def bearer_of(metadata: Any, prefix: str) -> ParsedToken:
    """The calling token. Raises BearerError and CallerUnknownError."""
    try:
        return parse_token(bearer_token(metadata), prefix)
    except MalformedTokenError:
        raise CallerUnknownError("TOKEN_MALFORMED", "the calling token is malformed") from None


def _parse(text: str, prefix: str) -> ParsedToken | None:
    try:
        return parse_token(text, prefix)
    except MalformedTokenError:
        return None
