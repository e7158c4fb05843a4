"""A token as the rules see it: everything but the secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

# Watchword is itself an audience and the owner of the scopes below this word.
WATCHWORD = "watchword"
ADMINISTRATOR_SCOPE = "watchword.*"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token's holder may put into tokens it issues: patterns, all of which have to fit."""

    scopes: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One stored token."""

    token_id: UUID
    pepper_version: int
    digest: bytes = field(repr=False)
    subject: str
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    grants: tuple[Grant, ...]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoke_reason: str | None = None
    issued_by: UUID | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
