"""A database with the semantics that the protocol relies on, and none of its machinery."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from watchword_server.store.contract import Position, StoreUnavailableError
from watchword_server.store.feed import page_of
from watchword_server.store.fleet_contract import FeedPage, NewReplica, ReplicaRow, Roll


@dataclass(slots=True)
class PositionRow:
    """One position of the feed."""

    mark: UUID
    token_ids: Sequence[UUID]
    everything: bool


@dataclass(slots=True)
class State:
    """Everything that is committed."""

    epoch: UUID = field(default_factory=uuid4)
    timeline: int = 1
    number: int = 0
    mark: UUID = field(default_factory=uuid4)
    pruned_to: int = 0
    settled: bool = True
    longest_lease_seconds: float = 0.0
    positions: dict[int, PositionRow] = field(default_factory=dict)
    revoked: dict[UUID, int] = field(default_factory=dict)
    replicas: dict[UUID, ReplicaRow] = field(default_factory=dict)


class Transaction:
    """A revocation that holds the row of the feed."""


class Database:
    """The fleet's tables as one PostgreSQL has them. Each method is one statement: it happens at one moment.

    `writer` holds the lock of the feed's row; what would wait for it asks `unlocked`.
    """

    def __init__(self) -> None:
        self.state = State()
        self.state.positions[0] = PositionRow(self.state.mark, (), everything=False)
        self.timeline = 1
        self.writer: Transaction | None = None
        self.standby: State | None = None

    # What ends tokens

    def unlocked(self) -> bool:
        """Whether an update of the feed's row need not wait."""
        return self.writer is None

    def begin(self) -> Transaction:
        """A revocation takes the lock of the feed's row."""
        self.writer = Transaction()
        return self.writer

    def commit(self, transaction: Transaction, token_ids: Sequence[UUID], *, everything: bool = False) -> Position:
        """The revocation is seen from here on; its position. `everything` is how a great many are recorded."""
        if self.writer is not transaction:
            raise StoreUnavailableError("ended by a fail-over")
        self.writer = None
        state = self.state
        self.record(state.number + 1, token_ids, everything=everything)
        return Position(state.epoch, state.number)

    def record(self, number: int, token_ids: Sequence[UUID], *, everything: bool = False) -> None:
        """What a commit leaves in the tables."""
        state = self.state
        state.number = max(state.number, number)
        mark = uuid4()
        if state.number == number:
            state.mark = mark
        state.positions[number] = PositionRow(mark, () if everything else tuple(token_ids), everything)
        for token_id in token_ids:
            state.revoked.setdefault(token_id, number)

    def prune(self) -> None:
        """Old positions are forgotten."""
        self.state.pruned_to = self.state.number
        self.state.positions = {self.state.number: self.state.positions[self.state.number]}

    # The fleet

    def epoch(self) -> UUID:
        """Begins a new one first if this is another PostgreSQL than the stored."""
        if self.state.timeline != self.timeline:
            self.begin_epoch(self.state.epoch)
        return self.state.epoch

    def begin_epoch(self, seen: UUID) -> None:
        """Unless somebody was faster."""
        if self.state.epoch == seen:
            self.state.epoch = uuid4()
            self.state.timeline = self.timeline
            self.state.settled = False

    def join(self, replica: NewReplica) -> bool:
        """queries/fleet_join.sql."""
        if replica.epoch != self.state.epoch:
            return False
        self.state.longest_lease_seconds = max(self.state.longest_lease_seconds, replica.lease_seconds)
        self.state.replicas[replica.key] = ReplicaRow(
            key=replica.key,
            epoch=replica.epoch,
            name=replica.name,
            applied=None,
            renewals=0,
            lease_seconds=replica.lease_seconds,
            draining=False,
            watchers_count=0,
            renewed_ago_seconds=0.0,
        )
        return True

    def renew(self, key: UUID, epoch: UUID) -> bool:
        """queries/fleet_renew.sql."""
        row = self._row(key, epoch)
        if row is None or self.state.timeline != self.timeline:
            return False
        self.state.replicas[key] = replace(row, renewals=row.renewals + 1)
        return True

    def publish(self, key: UUID, epoch: UUID, applied: int) -> bool:
        """queries/fleet_publish.sql."""
        row = self._row(key, epoch)
        if row is None:
            return False
        self.state.replicas[key] = replace(row, applied=max(row.applied or 0, applied))
        return True

    def leave(self, key: UUID) -> None:
        """queries/fleet_leave.sql."""
        self.state.replicas.pop(key, None)

    def fence(self, key: UUID, renewals: int) -> bool:
        """queries/fleet_fence.sql."""
        row = self.state.replicas.get(key)
        if row is None or row.renewals != renewals:
            return False
        del self.state.replicas[key]
        return True

    def roll(self) -> Roll:
        """queries/fleet_roll.sql."""
        state = self.state
        return Roll(
            state.epoch, state.number, state.settled, state.longest_lease_seconds, tuple(state.replicas.values())
        )

    def page(self, after: int | None, mark: UUID | None) -> FeedPage:
        """queries/fleet_feed.sql."""
        state = self.state
        asked = state.positions.get(-1 if after is None else after)
        feed: dict[str, Any] = {
            "epoch": state.epoch,
            "position": state.number,
            "mark": state.mark,
            "pruned_to": state.pruned_to,
            "epoch_settled": state.settled,
            "longest_lease_seconds": state.longest_lease_seconds,
            "mark_asked": None if asked is None else asked.mark,
        }
        rows = [
            {**feed, "number": number, "page_mark": row.mark, "everything": row.everything, "token_ids": row.token_ids}
            for number, row in sorted(state.positions.items())
            if after is not None and number > after
        ]
        nothing = {"number": None, "page_mark": None, "everything": None, "token_ids": None}
        return page_of(rows or [{**feed, **nothing}], after, mark)

    def settle(self, epoch: UUID) -> None:
        """queries/fleet_settle.sql."""
        if epoch == self.state.epoch:
            self.state.settled = True

    def _row(self, key: UUID, epoch: UUID) -> ReplicaRow | None:
        row = self.state.replicas.get(key)
        return row if row is not None and row.epoch == epoch == self.state.epoch else None

    # A synchronous standby

    def replicate(self) -> None:
        """From now on there is one; it has everything committed so far."""
        self.standby = copy.deepcopy(self.state)

    def has(self, position: Position) -> bool:
        """Whether a commit is answered: the standby, if there is one, has it."""
        return self.standby is None or self.standby.number >= position.number

    def fail_over(self) -> None:
        """The standby takes over. Transactions under way are gone, and so is what it had not received."""
        if self.standby is not None:
            self.state, self.standby = self.standby, None
        self.writer = None
        self.timeline += 1
