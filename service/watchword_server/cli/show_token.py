"""A token's record as people read it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from watchword_server.cli.bindings import certificate_text
from watchword_server.cli.durations import format_duration
from watchword_server.cli.output import Column, Output, instant, instant_and_distance

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from watchword.v1.token_service_pb2 import Grant, Token


def show_token(output: Output, token: Token) -> None:
    """Writes the record, a field a line, and below it who uses the token, where that is known."""
    output.record([*token_fields(token), *_usage_fields(token)])
    if token.usage.services:
        output.line("")
        show_users(output, token)


def show_users(output: Output, token: Token) -> None:
    """Writes who uses the token, the latest first."""
    now = datetime.now(UTC)
    output.table(
        (Column("used by"), Column("from"), Column("last seen"), Column("uses"), Column("needed scopes")),
        (
            (
                use.service,
                use.address,
                instant_and_distance(use.last_used_at, now),
                str(use.use_count),
                " ".join(use.scopes),
            )
            for use in token.usage.services
        ),
    )


def token_fields(token: Token) -> Iterable[tuple[str, str]]:
    """The record's fields, empty ones included, without those of its use."""
    now = datetime.now(UTC)
    yield "token_id", token.token_id
    yield "state", state_name(token)
    yield "kind", kind_name(token)
    yield "subject", token.subject
    yield "owner", token.owner
    yield "name", token.name
    yield "scopes", "  ".join(token.scopes)
    yield "audiences", "  ".join(token.audiences)
    for number, grant in enumerate(token.grants):
        yield f"grants[{number}]", grant_text(grant)
    for key in sorted(token.metadata):
        yield f"metadata.{key}", token.metadata[key]
    yield "allowed_networks", "  ".join(token.allowed_networks)
    yield "certificate_sha256", certificate_text(token.certificate_sha256)
    yield "issued_by", token.issued_by
    yield "tied_to", f"{token.tied_to} (ends with that lineage)" if token.tied_to else ""
    yield from _lineage_fields(token, now)
    yield "created_at", instant(token.created_at)
    yield "expires_at", instant_and_distance(token.expires_at, now)
    if token.HasField("idle_timeout"):
        yield "idle_timeout", format_duration(timedelta(seconds=token.idle_timeout.seconds))
    if token.HasField("idle_expires_at"):
        yield "idle_expires_at", f"{instant_and_distance(token.idle_expires_at, now)}{_idle_note(token)}"
    if token.HasField("revoked_at"):
        yield "revoked_at", instant_and_distance(token.revoked_at, now)
    yield "revoke_reason", token.revoke_reason


def _idle_note(token: Token) -> str:
    """What the end of a session that is not used means for this one."""
    from watchword.v1.token_service_pb2 import TokenState

    if token.state == TokenState.TOKEN_STATE_LIVE:
        return ", unless it is used before"
    ended_idle = token.state == TokenState.TOKEN_STATE_EXPIRED and ends_at(token) == token.idle_expires_at
    return ", for want of use" if ended_idle else ""


def _lineage_fields(token: Token, now: datetime) -> Iterable[tuple[str, str]]:
    """How it is related by rotation; nothing for a token that never was."""
    if token.predecessor_id or token.successor_id:
        yield "lineage_id", token.lineage_id
    yield "predecessor_id", token.predecessor_id
    yield "successor_id", token.successor_id
    if token.HasField("rotated_at"):
        yield "rotated_at", instant_and_distance(token.rotated_at, now)


def _usage_fields(token: Token) -> Iterable[tuple[str, str]]:
    """What is known of its use, where that was asked for."""
    if token.HasField("usage"):
        yield "last used", last_used(token, datetime.now(UTC))
        yield "uses", str(token.usage.use_count)
        yield "never needed", "  ".join(token.usage.unused_scopes)


def ends_at(token: Token) -> Timestamp:
    """When it ends if nobody does anything: at its end, or, for a session, when it was idle for too long."""
    if token.HasField("idle_expires_at") and token.idle_expires_at.ToNanoseconds() < token.expires_at.ToNanoseconds():
        return token.idle_expires_at
    return token.expires_at


def last_used(token: Token, now: datetime) -> str:
    """When it was last seen in use, where its usage was asked for."""
    usage = token.usage
    return instant_and_distance(usage.last_used_at, now) if usage.HasField("last_used_at") else "never seen"


def grant_text(grant: Grant) -> str:
    """A grant in the form that `issue --grant` reads."""
    parts = (("scopes", grant.scopes), ("subjects", grant.subjects), ("audiences", grant.audiences))
    return ",".join(f"{name}={','.join(values)}" for name, values in parts)


def state_name(token: Token) -> str:
    """`live`, `expired` or `revoked`; a number for a state that this version does not know."""
    from watchword.v1.token_service_pb2 import TokenState

    if token.state not in TokenState.values():
        return str(token.state)
    return TokenState.Name(token.state).removeprefix("TOKEN_STATE_").lower()


def kind_name(token: Token) -> str:
    """`session` or `personal`; empty for a service's, which is what most are."""
    from watchword.v1.token_service_pb2 import TokenKind

    if token.kind not in TokenKind.values():
        return str(token.kind)
    if token.kind in (TokenKind.TOKEN_KIND_UNSPECIFIED, TokenKind.TOKEN_KIND_SERVICE):
        return ""
    return TokenKind.Name(token.kind).removeprefix("TOKEN_KIND_").lower()
