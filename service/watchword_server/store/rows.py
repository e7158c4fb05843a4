"""Between rows and records: the one place that knows how a token lies in its columns."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from watchword.token import expires_at_ms
from watchword_server.rules.tokens import Grant, TokenKind, TokenRecord

_NOTHING: Mapping[str, str] = {}
# What null stands for: HMAC-SHA-256.
DIGEST_SCHEME: Final = 1
_LIFECYCLE_COLUMNS: Final = 12
_COLUMNS: Final = slice(-len(TokenRecord._fields), -_LIFECYCLE_COLUMNS)
_LIFECYCLE: Final = slice(-_LIFECYCLE_COLUMNS, None)
# What most tokens have there: nulls.
_PLAIN: Final = (None,) * _LIFECYCLE_COLUMNS


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
    record = TokenRecord(
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
    lifecycle = row[_LIFECYCLE]
    return record if lifecycle == _PLAIN else _with_lifecycle(record, lifecycle)


def _with_lifecycle(record: TokenRecord, columns: Sequence[Any]) -> TokenRecord:
    kind, owner, idle_seconds, idle_expires_at, networks, certificate, lineage_id, *rotation, tied_to, scheme = columns
    predecessor_id, successor_id, rotated_at = rotation
    return record._replace(
        kind=TokenKind(kind or TokenKind.SERVICE),
        owner=owner or "",
        idle_timeout=None if idle_seconds is None else timedelta(seconds=idle_seconds),
        idle_expires_at=idle_expires_at,
        allowed_networks=networks or (),
        certificate_sha256=certificate or b"",
        lineage_id=lineage_id,
        predecessor_id=predecessor_id,
        successor_id=successor_id,
        rotated_at=rotated_at,
        tied_to=tied_to,
        digest_scheme=scheme or DIGEST_SCHEME,
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


def words_text(words: Sequence[str]) -> str | None:
    """Words that hold no space as one text, None for none."""
    return " ".join(words) or None


def seconds_of(span: timedelta | None) -> int | None:
    """A span in whole seconds."""
    return None if span is None else int(span.total_seconds())


def scheme_or_null(digest_scheme: int) -> int | None:
    """A digest's scheme; null stands for the usual one and takes no room."""
    return None if digest_scheme == DIGEST_SCHEME else digest_scheme


def new_event_id() -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7): audit events are partitioned by the time that it begins with."""
    random = int.from_bytes(os.urandom(10)) & ~((0xF << 76) | (0b11 << 62))
    return UUID(int=(time.time_ns() // 1_000_000 << 80) | random | (0x7 << 76) | (0b10 << 62))
