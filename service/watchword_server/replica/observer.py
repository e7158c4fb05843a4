"""What one replica knows of all others: whether a position is applied everywhere, and who counts as gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from watchword.lease import Clock, recorder_end
from watchword_server.store.contract import Position
from watchword_server.store.fleet_contract import ReplicaRow, Roll

SLACK_SECONDS = 1.0
"""For the queries and wake-ups between a lease's end and the reply."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A replica whose lease has run out: to be counted as gone by a delete that hits its row, and by nothing else."""

    key: UUID
    renewals: int


@dataclass(frozen=True, slots=True)
class _Seen:
    renewals: int
    first_at: float
    lease_seconds: float


class Observer:
    """Fed with rolls of all replicas. `ticket` orders what was sent: a roll speaks for a commit only if its query was
    sent after it (`test_a_roll_sent_before_the_commit_says_nothing`)."""

    def __init__(self, clock: Clock, *, ack_timeout_seconds: float = 5.0) -> None:
        self._clock = clock
        self._ack_timeout_seconds = ack_timeout_seconds
        self._tickets = 0
        self._roll: Roll | None = None
        self._roll_ticket = 0
        self._seen: dict[UUID, _Seen] = {}
        self._gone: set[UUID] = set()
        self._epoch_first_at = 0.0

    def ticket(self) -> int:
        """To be drawn before the query of a roll is sent, and after a commit."""
        self._tickets += 1
        return self._tickets

    def observe(self, roll: Roll, ticket: int) -> Sequence[Suspect]:
        """Takes in a roll that was received just now; who is to be fenced. One older than the last is ignored."""
        if ticket <= self._roll_ticket:
            return ()
        now = self._clock.boottime()
        if self._roll is None or self._roll.epoch != roll.epoch:
            self._epoch_first_at = now
        self._roll, self._roll_ticket = roll, ticket
        self._seen = {row.key: self._see(row, now) for row in roll.replicas}
        self._gone &= self._seen.keys()
        return [
            Suspect(key, seen.renewals)
            for key, seen in self._seen.items()
            if key not in self._gone and self._run_out(seen, now)
        ]

    def fenced(self, suspect: Suspect) -> None:
        """The delete hit the row. A lease that ran out alone proves nothing: the replica may have renewed since
        (`test_a_replica_whose_lease_ran_out_counts_until_the_delete_hit_its_row`)."""
        if suspect.key in self._seen:
            self._gone.add(suspect.key)

    def complete(self, position: Position, committed: int) -> bool:
        """Whether every replica, and every verifier with a lease of one, has applied `position`. `committed` is the
        ticket drawn after its commit."""
        roll = self._roll
        if roll is None or self._roll_ticket <= committed:
            return False
        return roll.epoch == position.epoch and roll.settled and not self._awaited(roll, position)

    def effective_in_seconds(self, position: Position) -> float:
        """An upper bound, counted from now, unless the database is lost meanwhile. A verifier that answers nothing is
        refused renewal after the acknowledgement timeout, and then its lease runs out; so does a dead replica's."""
        if self._roll is None:
            return self._ack_timeout_seconds + SLACK_SECONDS
        lease_ends_in = recorder_end(0.0, self._roll.longest_lease_seconds)
        settles_in = 0.0
        if not self._roll.settled or self._roll.epoch != position.epoch:
            settles_in = max(0.0, self._epoch_first_at + lease_ends_in - self._clock.boottime())
        return max(settles_in, self._ack_timeout_seconds + lease_ends_in) + SLACK_SECONDS

    def replicas_count(self) -> int:
        """How many replicas there are, by the last roll."""
        return 0 if self._roll is None else len(self._roll.replicas) - len(self._gone)

    def wants_settle(self) -> UUID | None:
        """The epoch, once this machine's clock saw one longest lease pass in it: no lease of an older one is left."""
        roll = self._roll
        if roll is None or roll.settled:
            return None
        if self._clock.boottime() < recorder_end(self._epoch_first_at, roll.longest_lease_seconds):
            return None
        return roll.epoch

    def _awaited(self, roll: Roll, position: Position) -> Sequence[ReplicaRow]:
        """The replicas that have not applied it. One of another epoch has not, whatever its number."""
        return [
            row
            for row in roll.replicas
            if row.key not in self._gone
            and not (row.epoch == position.epoch and row.applied is not None and row.applied >= position.number)
        ]

    def _see(self, row: ReplicaRow, now: float) -> _Seen:
        """Counts from the *first* reading of a renewal counter."""
        seen = self._seen.get(row.key)
        if seen is not None and seen.renewals == row.renewals:
            return seen
        return _Seen(row.renewals, now, row.lease_seconds)

    def _run_out(self, seen: _Seen, now: float) -> bool:
        return now >= recorder_end(seen.first_at, seen.lease_seconds)
