"""The way of every call, as a list: boundary, permit, bearer, rate, decode, read, caller, answer, encode.

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
from watchword_server.answer.proof import Digests, proves
from watchword_server.request.access import NOT_ADMINISTRATIVE, Access
from watchword_server.request.attempt import Attempt, AuditedMethod
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.request.evidence import address_of, evidence_of
from watchword_server.request.permits import Permits
from watchword_server.request.rates import Rates
from watchword_server.request.status import Answer, answer_for, internal
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
    """One RPC: how to decode it, which tokens a request presents, and what answers it, which spends from `rates`."""

    path: str
    request_type: type[R]
    answer: Callable[[Call[R]], Awaitable[Message]]
    tokens_in: Callable[[R], Sequence[str]] = lambda request: ()
    writes: bool = False
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every method's way leads through."""

    store: Reads
    digests: Digests
    permits: Permits
    token_prefix: str
    trail: AuditTrail
    proxies: TrustedProxies = field(default_factory=lambda: TrustedProxies(()))
    """Whose word is taken for where a caller with a bound token is."""
    count_call: Callable[[TokenRecord, Callable[[], str], Sequence[str]], None] = lambda caller, peer, required: None
    """Counts one use of a caller's token: whose, from what address, needing which scopes."""
    rotated_presented: Callable[[TokenRecord, str], None] = lambda caller, address: None
    """Hears of a rotated token that somebody called with after its end, and from what address."""
    large_reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_CALLS_MAX))
    large_writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_CALLS_MAX))
    """Of their own: a write may wait for a lock, and a large check must not wait for that."""


Handler = Callable[[bytes, Any], Awaitable[Message]]


def handler(method: Method[R], access: Access, surroundings: Surroundings, meter: Meter) -> Handler:
    """The behaviour to register for a method: `async def (request bytes, context) -> response message`."""
    permits, lateness, clock = surroundings.permits, surroundings.permits.lateness, time.perf_counter
    carry_out = _carry_out(method, access, surroundings)
    audited: AuditedMethod | None = None
    if access.action != NOT_ADMINISTRATIVE:
        audited = AuditedMethod(surroundings.trail, access.action, writes=method.writes)

    async def behaviour(data: bytes, context: Any) -> Message:
        began = clock()
        if permits.under_way >= permits.limit or (began > lateness.due_at and lateness.late()):
            answer = permits.refusal()
        else:
            permits.under_way += 1
            attempt = None if audited is None else audited.attempt(context)
            try:
                response = await carry_out(data, context, attempt)
                if attempt is not None:
                    attempt.allowed()
                meter.finished(0, clock() - began)
                return response
            except asyncio.CancelledError:
                meter.finished(_CANCELLED, clock() - began)
                raise
            except Exception as error:
                answer = boundary(error, method.path)
                if attempt is not None:
                    attempt.denied(answer)
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


def _carry_out(
    method: Method[R], access: Access, surroundings: Surroundings
) -> Callable[[bytes, Any, Attempt | None], Awaitable[Message]]:
    store, digests, prefix = surroundings.store, surroundings.digests, surroundings.token_prefix
    answer, decode = method.answer, _decoding(method, prefix)
    large = surroundings.large_writes if method.writes else surroundings.large_reads
    fixed = access.scopes == access.scopes_always
    proxies, count_call = surroundings.proxies, surroundings.count_call
    rotated_presented = surroundings.rotated_presented
    rates = method.rates or Rates(0)

    async def carry_out(data: bytes, context: Any, attempt: Attempt | None) -> Message:
        bearer = bearer_of(context.invocation_metadata(), prefix)
        if rates.limited:
            _check_rate(rates, digests, bearer, attempt)
        if len(data) <= UNPROVED_BYTES_MAX:
            return await proceed(data, context, bearer, attempt)
        # test_a_large_request_of_a_caller_unknown_is_refused_undecoded
        snapshot = await store.read([bearer.token_id])
        if attempt is not None:
            attempt.claims(bearer, snapshot)
        authenticate(
            digests,
            bearer,
            snapshot,
            required=access.scopes_always,
            evidence=lambda: evidence_of(context, proxies),
            rotated_presented=lambda record: rotated_presented(record, address_of(context, proxies)),
        )
        async with large:
            return await proceed(data, context, bearer, attempt)

    async def proceed(data: bytes, context: Any, bearer: ParsedToken, attempt: Attempt | None) -> Message:
        request, tokens, fault = decode(data)
        wanted = [bearer.token_id]
        wanted += [token.token_id for token in tokens if token is not None]
        snapshot = await store.read(wanted)
        if attempt is not None:
            attempt.claims(bearer, snapshot)
            attempt.asks(request, tokens)
        required = access.scopes if fixed or request is None else access.scopes_for(request)
        caller = authenticate(
            digests,
            bearer,
            snapshot,
            required=required,
            evidence=lambda: evidence_of(context, proxies),
            rotated_presented=lambda record: rotated_presented(record, address_of(context, proxies)),
        )
        count_call(caller, lambda: address_of(context, proxies), required)
        if fault is not None:
            raise fault
        assert request is not None
        if method.writes:
            _check_deadline(context)
        return await answer(Call(caller, request, tokens, snapshot, context.peer, context.time_remaining))

    return carry_out


Decoded = tuple[R | None, Sequence[ParsedToken | None], FieldsInvalidError | None]


def _decoding(method: Method[R], prefix: str) -> Callable[[bytes], Decoded[R]]:
    """Reads a request and the tokens in it. What is wrong with it is told only once the caller is known."""
    decode, tokens_in = method.request_type.FromString, method.tokens_in
    malformed = f"not a {method.request_type.DESCRIPTOR.full_name}"

    def decoded(data: bytes) -> Decoded[R]:
        request: R | None = None
        try:
            request = decode(data)
            return request, [_parse(text, prefix) for text in tokens_in(request)], None
        except DecodeError:
            return None, (), FieldsInvalidError([("request", malformed)])
        except FieldsInvalidError as error:
            return request, (), error

    return decoded


def _check_rate(rates: Rates, digests: Digests, bearer: ParsedToken, attempt: Attempt | None) -> None:
    """Before the database is asked; but only who has the secret is told of a caller's limit."""
    record = rates.limited.get(bearer.token_id)
    if record is not None and proves(digests, bearer, record):
        if attempt is not None:
            attempt.is_from(record)
        rates.check(record)


def _check_deadline(context: Any) -> None:
    # None is no deadline; zero is one that is over.
    seconds_left = context.time_remaining()
    if seconds_left is not None and seconds_left < WRITE_SECONDS_MIN:
        raise DeadlineTooNearError


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
