"""Between rows and records: the one place that knows how a token lies in its columns."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from watchword_server.rules.tokens import Grant, TokenRecord

_NOTHING: Mapping[str, str] = {}


def record_of(row: Any) -> TokenRecord:
    """A row with the columns of read.sql."""
    grants = row["grants"]
    metadata = row["metadata"]
    return TokenRecord(
        token_id=row["id"],
        pepper_version=row["pepper_version"],
        digest=row["digest"],
        subject=row["subject"],
        audiences=tuple(row["audiences"]),
        scopes=tuple(row["scopes"]),
        grants=() if grants is None else grants_of(grants),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        revoke_reason=row["revoke_reason"],
        issued_by=row["issued_by"],
        name=row["name"] or "",
        metadata=_NOTHING if metadata is None else json.loads(metadata),
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
    random = secrets.randbits(80) & ~((0xF << 76) | (0b11 << 62))
    return UUID(int=(time.time_ns() // 1_000_000 << 80) | random | (0x7 << 76) | (0b10 << 62))
