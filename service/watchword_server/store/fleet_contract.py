"""What the replicas need of a store: who is there, and the feed of what became less valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


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
