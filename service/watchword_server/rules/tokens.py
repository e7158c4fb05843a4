"""A token as the rules see it: everything but the secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple
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


class TokenRecord(NamedTuple):
    """One stored token. A tuple, because a hot path makes one for every row it reads."""

    token_id: UUID
    pepper_version: int
    digest: bytes
    """Kept out of `repr`."""
    subject: str
    audiences: Sequence[str]
    scopes: Sequence[str]
    grants: Sequence[Grant]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    revoke_reason: str | None = None
    issued_by: UUID | None = None
    name: str = ""
    metadata: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"TokenRecord(token_id={self.token_id!r}, subject={self.subject!r})"
