"""What the answers need of a store. They see this file and nothing of Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from watchword_server.rules.tokens import Grant, TokenRecord


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
    """The token is durable."""

    created_at: datetime


@dataclass(frozen=True, slots=True)
class IssuerGone:
    """The issuing token was revoked or expired before the commit. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class RequestIdUsed:
    """This caller used the request id within the last day, for that token. Nothing was stored."""

    token_id: UUID


IssueOutcome = Issued | IssuerGone | RequestIdUsed


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


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation did; durable. `refused`: the one token it named lies out of reach, and nothing was ended."""

    count: int
    out_of_reach: int
    position: Position
    refused: bool = False


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """Which tokens to list: in order of id, those after `after`."""

    subject: str = ""
    issued_by: UUID | None = None
    include_inactive: bool = False
    limit: int = 100
    after: UUID | None = None


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


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One recorded deed."""

    event_id: UUID
    occurred_at: datetime
    action: str
    actor: Actor
    token_id: UUID | None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to list, newest first, those before `before`."""

    actor: str = ""
    token_id: UUID | None = None
    action: str = ""
    since: datetime | None = None
    limit: int = 100
    before: UUID | None = None


class Store(Protocol):
    """Every method raises StoreUnavailableError or StoreOverloadedError. Writes run to their end once begun, whatever
    becomes of the caller, and are atomic with their audit event."""

    def read(self, token_ids: Sequence[UUID]) -> Awaitable[Snapshot]:
        """The rows of these ids, where they exist, as of now or later, never earlier."""
        ...

    async def issue(self, token: NewToken) -> IssueOutcome:
        """Stores a token, if its issuer (where it has one) is live at the commit. Raises RowRefusedError."""
        ...

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Revokes what the selector names, within reach. What names a token always moves the position."""
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

    async def events(self, wanted: EventQuery) -> Sequence[AuditEvent]:
        """One page of audit events."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """The tokens that became less valid at one position; `everything` stands for all there are."""

    number: int
    token_ids: Sequence[UUID]
    everything: bool = False


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Positions after the one asked for, read in one statement together with where the feed stands.

    `changes` are contiguous and begin right after the number asked for, unless `continues` is False: then that number
    is of another history, lies ahead of this one, or was pruned, and everything begins anew at `number`. A page may end
    before `number`: ask again.
    """

    epoch: UUID
    number: int
    mark: UUID
    """Drawn anew with each position: that of the last of `changes`, or of the position asked after if there are none;
    where `continues` is False, of `number`."""
    changes: Sequence[Change]
    continues: bool
    pruned: bool
    """Why it does not continue: what came after is no longer kept. Otherwise, where there was something to continue,
    this is another history than the one that was asked after."""
    settled: bool
    """False for one maximum lease after a new epoch began: until then nothing is known to be applied everywhere."""
    longest_lease_seconds: float


@dataclass(frozen=True, slots=True)
class NewReplica:
    """A server process about to join. `key` is never used again once it left or was fenced."""

    key: UUID
    epoch: UUID
    name: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One server process as the database has it."""

    key: UUID
    epoch: UUID
    name: str
    applied: int | None
    """None until it first told."""
    renewals: int
    lease_seconds: float
    draining: bool
    watchers_count: int
    renewed_ago_seconds: float


@dataclass(frozen=True, slots=True)
class WatcherRow:
    """One verifier's cache as its replica reported it. For people: nothing of the guarantee reads it."""

    replica: UUID
    verifier_key: bytes
    name: str
    instance: str
    library: str
    address: str
    subject: str
    lag: int
    lease_remaining_seconds: float
    attached: bool
    reported_ago_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Roll:
    """All replicas, read in one statement together with where the feed stands."""

    epoch: UUID
    number: int
    settled: bool
    longest_lease_seconds: float
    replicas: Sequence[ReplicaRow]


class Fleet(Protocol):
    """The replicas of one database, and the feed of what became less valid.

    Every method raises StoreUnavailableError. Every write is shielded from its caller's cancellation, has no driver
    timeout, and counts as not done where the database gave up waiting for a synchronous standby.
    """

    async def epoch(self) -> UUID:
        """The epoch as it is now. Begins a new one first if the database's identity or timeline is not the stored."""
        ...

    async def begin_epoch(self, seen: UUID) -> UUID:
        """Begins a new epoch because `seen` contradicts itself (a mark that does not match). If another process was
        faster, that one's."""
        ...

    async def join(self, replica: NewReplica) -> bool:
        """Commits the replica's row. False if its epoch is not the database's any more. The position to start from is
        read by a later `feed`."""
        ...

    async def renew(self, key: UUID, epoch: UUID) -> bool:
        """Counts one renewal. False if the row is gone, or the epoch is over (begins a new one first if the database's
        identity or timeline changed). Never inserts."""
        ...

    async def publish(self, key: UUID, epoch: UUID, applied: int) -> bool:
        """Tells that this replica and all verifiers with its leases have applied `applied`; wakes who waits for it.
        False if the row is gone or the epoch is over."""
        ...

    async def drain(self, key: UUID) -> None:
        """Marks the replica as going away, for people."""
        ...

    async def leave(self, key: UUID) -> None:
        """Deletes the row. Only after every verifier released its lease or that ran out."""
        ...

    async def fence(self, key: UUID, renewals: int) -> bool:
        """Deletes the row if it has not renewed since `renewals` was read. Only True counts: it is gone for good."""
        ...

    async def roll(self) -> Roll:
        """All replicas."""
        ...

    async def feed(self, after: int | None, mark: UUID | None, *, limit: int = 10_000) -> FeedPage:
        """What happened after the position `after` whose mark was `mark`; None: only where the feed stands."""
        ...

    async def settle(self, epoch: UUID) -> None:
        """One maximum lease has passed in this epoch: COMPLETE means complete again."""
        ...

    async def report(self, key: UUID, watchers: Sequence[WatcherRow]) -> None:
        """Replaces what is known of this replica's watchers, for people."""
        ...

    async def watchers(self, *, limit: int, after: tuple[UUID, bytes] | None) -> Sequence[WatcherRow]:
        """One page of all replicas' watchers."""
        ...

    async def wait_for_news(self, timeout_seconds: float) -> None:
        """Returns when there may be a new position. A hint, which can be lost."""
        ...

    async def wait_for_applied(self, timeout_seconds: float) -> None:
        """Returns when a replica may have applied more, or be gone. A hint, which can be lost."""
        ...
