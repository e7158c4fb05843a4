"""What the answers need of a store. They see this file and nothing of Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from watchword_server.rules.tokens import Grant, TokenKind, TokenRecord


class StoreError(Exception):
    """The family of everything that can go wrong in a store. Its text is for logs, never for callers."""


class StoreUnavailableError(StoreError):
    """The database cannot be asked now. Nothing was done, or, for a write, it is not known whether it was."""


class StoreOverloadedError(StoreError):
    """A queue in front of the database is full. Nothing was done."""


class RowRefusedError(StoreError):
    """The database refused what was to be written; only this request is affected."""


class PartitionMissingError(RowRefusedError):
    """There is no partition for what was to be stored: housekeeping has not kept up. Not the caller's fault."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the sequence of revocations something was read."""

    epoch: UUID
    number: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tokens as they stood at one position, with the database's clock at that moment.

    Shared by all who asked at once: `rows` may hold more than one asked for. `authenticated` is for answer/callers.py,
    so that a caller with thirty calls at one moment is proved once.
    """

    rows: Mapping[UUID, TokenRecord]
    position: Position
    now: datetime
    authenticated: dict[tuple[bytes, tuple[str, ...]], TokenRecord] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, for the audit log."""

    subject: str
    token_id: UUID | None
    address: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token about to be stored."""

    record: TokenRecord
    actor: Actor
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """The token is durable. A tied one may end earlier than was asked for: with its issuer."""

    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class IssuerGone:
    """The issuing token was revoked or expired before the commit. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class RequestIdUsed:
    """This caller used the request id within the last day, for that token. Nothing was stored."""

    token_id: UUID


@dataclass(frozen=True, slots=True)
class SubjectBlocked:
    """Nothing may be issued for this subject. Nothing was stored."""

    subject: str


IssueOutcome = Issued | IssuerGone | RequestIdUsed | SubjectBlocked


@dataclass(frozen=True, slots=True)
class Rotation:
    """A token about to be succeeded.

    `successor` is its whole record. What that may do, and an end that was cut short, the store takes from the row as it
    is at the commit: a narrowing that came between is not won back. So it cuts `expires_at` to the end of what the
    token is tied to. `as_issuer`: the actor rotates another's token, and its own has to be live at the commit as an
    issuer's; otherwise the rotated token is the actor's own.
    """

    rotated_id: UUID
    successor: TokenRecord
    grace: timedelta
    actor: Actor
    as_issuer: bool
    request_id: str = ""
    attempt: int = 0
    """Replaces only what a smaller one made under the same request id; 0 replaces any."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """The successor is durable. Both records as they are now, and the position at which the old one was shortened."""

    successor: TokenRecord
    rotated: TokenRecord
    position: Position


@dataclass(frozen=True, slots=True)
class AlreadyRotated:
    """It has a successor, made by another request. Nothing was stored."""

    successor_id: UUID


@dataclass(frozen=True, slots=True)
class TokenNotLive:
    """The token is revoked, expired, idle for too long, or there is no such row. Nothing was stored."""


RotationOutcome = Rotated | AlreadyRotated | TokenNotLive | IssuerGone | SubjectBlocked


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a token is to lose: scopes that it holds, and life beyond `life` from now (None: none of it)."""

    token_id: UUID
    remove_scopes: Sequence[str]
    life: timedelta | None
    actor: Actor
    reason: str
    within: Sequence[Grant]
    force: bool = False


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The record as it is now. `refused`: it lies out of reach, and nothing was done. `live_successor_id`: who was left
    alone and keeps what it held."""

    record: TokenRecord
    position: Position
    refused: bool = False
    live_successor_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ScopesNotHeld:
    """Scopes that were to be removed and are not held. Nothing was done."""

    scopes: Sequence[str]


class LastAdministratorError(StoreError):
    """What was asked for would leave nobody who can administer. Nothing was done."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which tokens to revoke: exactly one is set.

    `issued_before` names every token that was issued before that instant, save the actor's own.
    """

    token_id: UUID | None = None
    subject: str | None = None
    issued_by: UUID | None = None
    issued_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is to be revoked, and by whom.

    `within` are the grants outside of which nothing is touched, save a token whose secret was presented. `proved` is
    None where no secret was; False, it was not the token's, and then nothing is revoked, yet the position moves as it
    would.
    """

    selector: Selector
    actor: Actor
    reason: str
    cascade: bool
    within: Sequence[Grant]
    proved: bool | None = None
    force: bool = False
    """Also if no administrator is left."""
    block: bool = False
    """Blocks the selector's subject in the same transaction."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation did; durable. `refused`: the one token it named lies out of reach, and nothing was ended."""

    count: int
    out_of_reach: int
    position: Position
    refused: bool = False
    live_successor_id: UUID | None = None
    """Of the one token that was named, if it was left alone."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a revocation would do: its count, and the first of the tokens. `refused` as in Revoked."""

    count: int
    out_of_reach: int
    position: Position
    records: Sequence[TokenRecord]
    now: datetime
    refused: bool = False


@dataclass(frozen=True, slots=True)
class BlockedSubject:
    """For whom nothing can be issued."""

    subject: str
    reason: str
    blocked_by: str
    blocked_at: datetime


@dataclass(frozen=True, slots=True)
class Use:
    """One token's use at one service, to be merged with what is known. `used_ago_seconds` is as of the write."""

    token_id: UUID
    service: str
    count: int
    used_ago_seconds: float
    address: str
    scopes: Sequence[str]


@dataclass(frozen=True, slots=True)
class ServiceUse:
    """What is known of one token's use at one service."""

    service: str
    address: str
    last_used_at: datetime
    count: int
    scopes: Sequence[str]


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """Which tokens to list: in order of id, those after `after`."""

    subject: str = ""
    issued_by: UUID | None = None
    include_inactive: bool = False
    limit: int = 100
    after: UUID | None = None
    owner: str = ""
    kind: TokenKind | None = None
    unused_for: timedelta | None = None
    expiring_within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """One scope of the catalogue."""

    name: str
    description: str
    owner: str
    live_tokens: int = 0
    counted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ScopeOwned:
    """A name to be registered belongs to another subject. Nothing was stored."""

    name: str
    owner: str


class Reads(Protocol):
    """What looks tokens up by their ids. Raises StoreUnavailableError or StoreOverloadedError."""

    def read(self, token_ids: Sequence[UUID]) -> Awaitable[Snapshot]:
        """The rows of these ids, where they exist, as of now or later, never earlier."""
        ...


class Store(Reads, Protocol):
    """Every method raises StoreUnavailableError or StoreOverloadedError. Writes run to their end once begun, whatever
    becomes of the caller, and are atomic with their audit event."""

    async def issue(self, token: NewToken) -> IssueOutcome:
        """Stores a token, if its issuer (where it has one) is live at the commit. Raises RowRefusedError."""
        ...

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Revokes what the selector names, within reach. What names a token always moves the position. Raises
        LastAdministratorError."""
        ...

    async def preview(self, revocation: Revocation) -> Preview:
        """What `revoke` would do now. Changes nothing, and takes no position."""
        ...

    async def rotate(self, rotation: Rotation) -> RotationOutcome:
        """Stores the successor and shortens the rotated token's life, at a position. Of two at once, one wins."""
        ...

    async def narrow(self, narrowing: Narrowing) -> Narrowed | ScopesNotHeld | TokenNotLive:
        """Takes rights or life from a token, at a position. Raises LastAdministratorError."""
        ...

    async def unblock(self, subject: str, actor: Actor) -> bool:
        """Lets tokens be issued for a subject again; whether it was blocked. (`revoke` blocks.)"""
        ...

    async def blocked(self, *, limit: int, after: str) -> Sequence[BlockedSubject]:
        """One page of the blocked subjects, in order of their names."""
        ...

    async def usage(self, token_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[ServiceUse]]:
        """What is known of these tokens' use, the latest first; at most 100 services each."""
        ...

    async def tokens(self, wanted: TokenQuery) -> tuple[Sequence[TokenRecord], datetime]:
        """One page of tokens, and the database's clock."""
        ...

    async def scopes(self, *, limit: int, after: str) -> Sequence[ScopeEntry]:
        """The catalogue in order of names, those after `after`."""
        ...

    async def scopes_named(self, names: Sequence[str]) -> Sequence[ScopeEntry]:
        """Those of the catalogue's entries that bear one of these names."""
        ...

    async def scope_names(self) -> frozenset[str]:
        """All names of the catalogue."""
        ...

    async def register_scopes(self, scopes: Sequence[ScopeEntry], actor: Actor) -> int | ScopeOwned:
        """Adds scopes or updates their descriptions, all or nothing; how many are new."""
        ...
