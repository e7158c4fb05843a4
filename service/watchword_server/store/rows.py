"""Between rows and records: the one place that knows how a token lies in its columns."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from watchword.token import expires_at_ms
from watchword_server.rules.tokens import Grant, TokenRecord

_NOTHING: Mapping[str, str] = {}
_COLUMNS: Final = slice(-len(TokenRecord._fields), None)


def record_of(row: Any) -> TokenRecord:
    """A row that ends with the columns of a TokenRecord, in its order (as read_many.sql has them)."""
    token_id, version, digest, subject, audiences, scopes, grants, *instants, reason, issued_by, name, metadata = row[
        _COLUMNS
    ]
    created_at, expires_at, revoked_at = instants
    ends_at_ms = expires_at_ms(token_id)
    if expires_at.timestamp() * 1000 > ends_at_ms:
        # The id is under the digest and the column is not: whoever can write rows cannot prolong a token.
        # (test_row_cannot_outlive_its_id)
        expires_at = datetime.fromtimestamp(ends_at_ms / 1000, UTC)
    return TokenRecord(
        token_id,
        version,
        digest,
        subject,
        audiences,
        scopes,
        () if grants is None else grants_of(grants),
        created_at,
        expires_at,
        revoked_at,
        reason,
        issued_by,
        name or "",
        _NOTHING if metadata is None else json.loads(metadata),
    )


def grants_of(text: str) -> tuple[Grant, ...]:
    """Reads what grants_text writes."""
    return tuple(
        Grant(tuple(grant["scopes"]), tuple(grant["subjects"]), tuple(grant["audiences"])) for grant in json.loads(text)
    )


def grants_text(grants: Sequence[Grant]) -> str | None:
    """Grants as JSON, None for none."""
    if not grants:
        return None
    return json.dumps(
        [{"scopes": grant.scopes, "subjects": grant.subjects, "audiences": grant.audiences} for grant in grants]
    )


def pairs_text(pairs: Mapping[str, str]) -> str | None:
    """Metadata as JSON, None for none."""
    return json.dumps(dict(pairs)) if pairs else None


def new_event_id() -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7): audit events are partitioned by the time that it begins with."""
    random = int.from_bytes(os.urandom(10)) & ~((0xF << 76) | (0b11 << 62))
    return UUID(int=(time.time_ns() // 1_000_000 << 80) | random | (0x7 << 76) | (0b10 << 62))
