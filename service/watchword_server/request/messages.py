"""Between protobuf messages and the domain's values; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from watchword.scope import covers
from watchword.token import format_token_id
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.alarms import BOUND_REFUSED, ROTATED_PRESENTED
from watchword_server.answer.errors import FieldsInvalidError
from watchword_server.replica.propagation import Reached
from watchword_server.rules.tokens import Grant, TokenKind, TokenRecord
from watchword_server.store.contract import Position, ScopeEntry, ServiceUse
from watchword_server.store.event_contract import NEW_NETWORK, AuditEvent

# What nobody asked for, so that nothing was allowed or denied: of an alarm "allowed" would say the opposite.
_NOTICED: Final = frozenset({ROTATED_PRESENTED, BOUND_REFUSED, NEW_NETWORK})
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Sums of dates end at year 9999; protobuf's durations may be longer (10,000 years).
_DURATION_SECONDS_MAX: Final = 315_576_000_000

_KINDS: Final[Mapping[TokenKind, pb.TokenKind.ValueType]] = {
    kind: pb.TokenKind.Value(f"TOKEN_KIND_{kind.name}") for kind in TokenKind
}


def duration_message(delta: timedelta) -> Duration:
    """A timedelta as Duration."""
    return Duration(seconds=delta.days * 86_400 + delta.seconds, nanos=delta.microseconds * 1000)


def duration_of(message: Duration, path: str) -> timedelta:
    """A Duration as timedelta. Raises FieldsInvalidError for what neither protobuf nor Python takes."""
    same_sign = message.seconds == 0 or message.nanos == 0 or (message.seconds > 0) == (message.nanos > 0)
    if abs(message.seconds) > _DURATION_SECONDS_MAX or abs(message.nanos) > 999_999_999 or not same_sign:
        raise FieldsInvalidError([(path, "is not a valid duration")])
    try:
        # Rounded down: a fraction of a second is never the whole one that a limit asks for.
        return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise FieldsInvalidError([(path, "is too long")]) from None


def duration_given(request: Message, name: str) -> timedelta | None:
    """A field that is a Duration; None where it is not given. Raises FieldsInvalidError."""
    return duration_of(getattr(request, name), name) if request.HasField(name) else None


def timestamp_message(instant: datetime) -> Timestamp:
    """An aware datetime as Timestamp."""
    since = instant - _UNIX_EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def instant_of(message: Timestamp, path: str) -> datetime:
    """A Timestamp as aware datetime. Raises FieldsInvalidError."""
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise FieldsInvalidError([(path, "is not a valid timestamp")]) from None


def position_message(position: Position) -> pb.Position:
    """A position."""
    return pb.Position(epoch=position.epoch.bytes, number=position.number)


def propagation(reached: Reached) -> pb.Propagation.ValueType:
    """How far a revocation has got."""
    return pb.PROPAGATION_COMPLETE if reached.complete else pb.PROPAGATION_PENDING


def effective_in(reached: Reached) -> Duration:
    """How long it may take at most until it has got everywhere."""
    return duration_message(timedelta(seconds=reached.effective_in_seconds))


def grants_of(messages: Iterable[pb.Grant]) -> tuple[Grant, ...]:
    """Grants as the rules have them."""
    return tuple(Grant(tuple(grant.scopes), tuple(grant.subjects), tuple(grant.audiences)) for grant in messages)


def kind_of(value: pb.TokenKind.ValueType, path: str) -> TokenKind | None:
    """The kind that is meant; None where none is named. Raises FieldsInvalidError."""
    if value == pb.TOKEN_KIND_UNSPECIFIED:
        return None
    for kind, known in _KINDS.items():
        if known == value:
            return kind
    raise FieldsInvalidError([(path, "is not a kind that this server knows")])


def token_message(record: TokenRecord, now: datetime, usage: Sequence[ServiceUse] | None = None) -> pb.Token:
    """A stored token, with who uses it where that is given. There is no secret in a record, so none can leak here."""
    message = pb.Token(
        token_id=format_token_id(record.token_id),
        subject=record.subject,
        scopes=record.scopes,
        audiences=record.audiences,
        grants=[
            pb.Grant(scopes=grant.scopes, subjects=grant.subjects, audiences=grant.audiences) for grant in record.grants
        ],
        name=record.name,
        metadata=record.metadata,
        issued_by=_id_text(record.issued_by),
        created_at=timestamp_message(record.created_at),
        expires_at=timestamp_message(record.expires_at),
        revoke_reason=record.revoke_reason or "",
        kind=_KINDS[record.kind],
        owner=record.owner,
        allowed_networks=record.allowed_networks,
        certificate_sha256=record.certificate_sha256,
        tied_to=_id_text(record.tied_to),
        lineage_id=format_token_id(record.lineage),
        predecessor_id=_id_text(record.predecessor_id),
        successor_id=_id_text(record.successor_id),
    )
    if record.idle_timeout is not None:
        message.idle_timeout.CopyFrom(duration_message(record.idle_timeout))
    if record.idle_expires_at is not None:
        message.idle_expires_at.CopyFrom(timestamp_message(record.idle_expires_at))
    if record.rotated_at is not None:
        message.rotated_at.CopyFrom(timestamp_message(record.rotated_at))
    if usage is not None:
        message.usage.CopyFrom(_usage_message(record, usage))
    if record.revoked_at is not None:
        message.revoked_at.CopyFrom(timestamp_message(record.revoked_at))
        message.state = pb.TOKEN_STATE_REVOKED
    elif now >= record.ends_at:
        message.state = pb.TOKEN_STATE_EXPIRED
    else:
        message.state = pb.TOKEN_STATE_LIVE
    return message


def _id_text(token_id: UUID | None) -> str:
    return "" if token_id is None else format_token_id(token_id)


def _usage_message(record: TokenRecord, usage: Sequence[ServiceUse]) -> pb.TokenUsage:
    needed = {scope for use in usage for scope in use.scopes}
    message = pb.TokenUsage(
        use_count=sum(use.count for use in usage),
        services=[
            pb.ServiceUse(
                service=use.service,
                address=use.address,
                last_used_at=timestamp_message(use.last_used_at),
                use_count=use.count,
                scopes=use.scopes,
            )
            for use in usage
        ],
        unused_scopes=[held for held in record.scopes if not any(covers(held, scope) for scope in needed)],
    )
    if usage:
        message.last_used_at.CopyFrom(timestamp_message(max(use.last_used_at for use in usage)))
    return message


def scope_message(entry: ScopeEntry) -> pb.Scope:
    """One entry of the catalogue."""
    return pb.Scope(
        name=entry.name,
        description=entry.description,
        owner=entry.owner,
        live_tokens=entry.live_tokens,
        counted_at=timestamp_message(entry.counted_at) if entry.counted_at is not None else None,
    )


def held_scope_messages(held: Sequence[str], known: Iterable[ScopeEntry]) -> list[pb.Scope]:
    """A token's scopes, with what the catalogue says of them."""
    entries = {entry.name: entry for entry in known}
    return [scope_message(entries[name]) if name in entries else pb.Scope(name=name) for name in held]


def event_message(event: AuditEvent) -> audit_pb.AuditEvent:
    """One audit event."""
    actor = event.actor
    return audit_pb.AuditEvent(
        event_id=str(event.event_id),
        occurred_at=timestamp_message(event.occurred_at),
        action=event.action,
        actor=actor.subject,
        actor_token_id=_id_text(actor.token_id),
        address=actor.address,
        token_id=_id_text(event.token_id),
        details=event.details,
        outcome=event.outcome or ("noticed" if event.action in _NOTICED else "allowed"),
    )
