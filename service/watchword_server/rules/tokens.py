"""A token as the rules see it: everything but the secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
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


class TokenKind(IntEnum):
    """What a token is for. The values are the database's, where a service's is null."""

    SERVICE = 0
    SESSION = 1
    """Ends when it is not used for its idle timeout."""
    PERSONAL = 2
    """Belongs to an owner."""


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
    kind: TokenKind = TokenKind.SERVICE
    owner: str = ""
    """The subject that a personal token belongs to."""
    idle_timeout: timedelta | None = None
    idle_expires_at: datetime | None = None
    """When a session ends unless it is used before."""
    allowed_networks: Sequence[str] = ()
    """CIDR prefixes in their canonical form; none: from anywhere."""
    certificate_sha256: bytes = b""
    """Of the client certificate that calls have to come with (RFC 8705 x5t#S256); empty: any or none."""
    lineage_id: UUID | None = None
    """The first token of its chain of rotations; None: this one. Ask `lineage`."""
    predecessor_id: UUID | None = None
    successor_id: UUID | None = None
    rotated_at: datetime | None = None
    tied_to: UUID | None = None
    """The lineage that it dies with."""
    digest_scheme: int = 1
    """How the digest was made; see keyring.py."""

    @property
    def lineage(self) -> UUID:
        """What its successors and it have in common."""
        return self.token_id if self.lineage_id is None else self.lineage_id

    @property
    def ends_at(self) -> datetime:
        """When it ends if nobody does anything: at its end, or, for a session, when it was idle for too long."""
        idle_expires_at = self.idle_expires_at
        if idle_expires_at is None or idle_expires_at > self.expires_at:
            return self.expires_at
        return idle_expires_at

    def __repr__(self) -> str:
        return f"TokenRecord(token_id={self.token_id!r}, subject={self.subject!r})"
