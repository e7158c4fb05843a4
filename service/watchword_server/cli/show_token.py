"""A token's record as people read it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from watchword_server.cli.output import Output, instant, instant_and_distance

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import Grant, Token


def show_token(output: Output, token: Token) -> None:
    """Writes the record, a field a line."""
    output.record(token_fields(token))


def token_fields(token: Token) -> Iterable[tuple[str, str]]:
    """The record's fields, empty ones included."""
    now = datetime.now(UTC)
    yield "token_id", token.token_id
    yield "state", state_name(token)
    yield "subject", token.subject
    yield "name", token.name
    yield "scopes", "  ".join(token.scopes)
    yield "audiences", "  ".join(token.audiences)
    for number, grant in enumerate(token.grants):
        yield f"grants[{number}]", grant_text(grant)
    for key in sorted(token.metadata):
        yield f"metadata.{key}", token.metadata[key]
    yield "issued_by", token.issued_by
    yield "created_at", instant(token.created_at)
    yield "expires_at", instant_and_distance(token.expires_at, now)
    if token.HasField("revoked_at"):
        yield "revoked_at", instant_and_distance(token.revoked_at, now)
    yield "revoke_reason", token.revoke_reason


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
