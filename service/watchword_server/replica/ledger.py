"""What one replica knows, whom it granted leases, and therefore what it and all of them have applied.

One event loop drives it. Nothing here waits: every method is one step, whole by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

from watchword.lease import LEASE_SECONDS_DEFAULT, Clock, Instant, Lease, recorder_end
from watchword_server.replica.change_log import ChangeLog
from watchword_server.replica.records import LeaseRecords, Watcher
from watchword_server.store.fleet_contract import FeedPage

IDS_KEPT_MAX: Final = 200_000
RECORDS_MAX: Final = 100_000
RECORDS_PER_SUBJECT_MAX: Final = 10_000
"""A record outlives its stream, so the limits of streams do not bound these."""


class AttachedStream(Protocol):
    """What the ledger needs of the stream of a verifier."""

    @property
    def watcher(self) -> Watcher:
        """Who attached."""
        ...

    @property
    def acked(self) -> int:
        """What the verifier acknowledged on it."""
        ...

    def wake(self) -> None:
        """There may be something to send."""
        ...

    def replaced(self) -> None:
        """The same verifier attached again: this stream is over."""
        ...


class Ledger:
    """A replica's membership, its change log, and the lease records of its verifiers.

    Order of joining: commit the row, `joined`, *then* ask the feed, `start`. Until the ledger knows all that stood in
    the feed by then, nothing is granted (`test_nothing_is_granted_before_a_position_read_after_the_row_is_known`).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        lease_seconds_max: float = LEASE_SECONDS_DEFAULT,
        ids_kept_max: int = IDS_KEPT_MAX,
        records_max: int = RECORDS_MAX,
        records_per_subject_max: int = RECORDS_PER_SUBJECT_MAX,
    ) -> None:
        self.lease_seconds_max: Final = lease_seconds_max
        self.key: UUID | None = None
        self.epoch: UUID | None = None
        self.mark: UUID | None = None
        self.log: ChangeLog | None = None
        self.draining = False
        self.records = LeaseRecords()
        self._clock = clock
        self._ids_kept_max = ids_kept_max
        self._records_max = records_max
        self._records_per_subject_max = records_per_subject_max
        self._lease = Lease()
        self._start: int | None = None
        self._applied: int | None = None
        self._attached: dict[bytes, AttachedStream] = {}

    # Membership

    def joined(self, key: UUID, epoch: UUID, sent: Instant) -> None:
        """The row is committed; `sent` was taken before that was asked for. In another epoch all begins anew: leases of
        the old one are waited out by whoever settles the new one."""
        if epoch != self.epoch:
            self.log = None
            self.mark = None
            self.records = LeaseRecords()
            self._applied = None
        self.key = key
        self.epoch = epoch
        self._start = None
        self._lease = Lease()
        self._lease.renew(sent, self.lease_seconds_max)

    def start(self, page: FeedPage) -> bool:
        """The first page that was asked for after the row was committed; see `learn`."""
        if not self.learn(page):
            return False
        self._start = page.number
        return True

    def renewed(self, sent: Instant) -> None:
        """The row was renewed; `sent` was taken before the query (`test_own_lease_counts_from_before_the_query`)."""
        if self.key is not None:
            self._lease.renew(sent, self.lease_seconds_max)

    def lost(self) -> None:
        """The row is gone, or its epoch is over: nothing is granted nor answered until it joined anew. Records stay."""
        self.key = None
        self._start = None
        self._lease.lapse()

    @property
    def started(self) -> bool:
        """Whether it is a member and knows all that stood in the feed when it became one."""
        return self._start is not None and self.number is not None and self.number >= self._start

    def own_lease_live(self) -> bool:
        """Whether this replica may answer from what it knows, by the clock as it is now."""
        return self.started and self._lease.live(self._clock)

    @property
    def granting(self) -> bool:
        """Whether verifiers may be granted leases now."""
        return not self.draining and self.own_lease_live()

    # The feed

    @property
    def number(self) -> int | None:
        """The position known, to be asked after together with `mark`."""
        return None if self.log is None else self.log.number

    def learn(self, page: FeedPage) -> bool:
        """What the feed said. False if that is another epoch or a shorter history than is known here: then nothing is
        learned and the replica has to join anew."""
        if page.epoch != self.epoch:
            return False
        now = self._clock.boottime()
        log = self.log
        if log is None or not page.continues:
            if log is not None and page.number < log.number:
                return False
            log = self._begin(page.number, now)
            self.mark = page.mark
        for change in page.changes:
            if change.number == log.number + 1:
                log.append(change, now)
            elif change.number > log.number:  # A gap is a flush, never silence.
                log = self._begin(change.number, now)
        if page.changes and page.changes[-1].number == log.number:
            self.mark = page.mark
        self.log = log
        for stream in self._attached.values():
            stream.wake()
        return True

    # What is applied

    def applied(self) -> int | None:
        """The smaller of what is known and what every verifier with an unexpired lease acknowledged, as of now. Never
        goes back within an epoch. None until started."""
        # Also while it is no member: until then `next_deadline` would lie in the past, and be waited for without end.
        self.records.expire(self._clock.boottime())
        if not self.started or self.number is None:
            return None
        acked = self.records.acked_min()
        applied = self.number if acked is None else min(self.number, acked)
        assert self._applied is None or applied >= self._applied, "what is applied stays applied"
        self._applied = applied
        return applied

    def next_deadline(self) -> float | None:
        """When the next record runs out and `applied` may grow, in seconds of CLOCK_BOOTTIME."""
        return self.records.next_end()

    # Verifiers

    @property
    def streams(self) -> Sequence[AttachedStream]:
        """Those that said hello and are not closed."""
        return list(self._attached.values())

    def subject_of(self, verifier_key: bytes) -> str | None:
        """Whose verifier it is, as far as is known: nobody else may speak for it."""
        stream = self._attached.get(verifier_key)
        if stream is not None:
            return stream.watcher.subject
        record = self.records.get(verifier_key)
        return None if record is None else record.watcher.subject

    def attach(self, stream: AttachedStream) -> None:
        """A verifier said hello. An older stream of the same one is over; its record goes on."""
        older = self._attached.get(stream.watcher.verifier_key)
        self._attached[stream.watcher.verifier_key] = stream
        if older is not None:
            older.replaced()

    def detach(self, stream: AttachedStream) -> None:
        """The stream is over. The record stays: the verifier may rely on its lease without a stream
        (`test_a_record_outlives_its_stream`)."""
        if self._attached.get(stream.watcher.verifier_key) is stream:
            del self._attached[stream.watcher.verifier_key]

    def grantable_seconds(self, asked_seconds: float) -> float:
        """The lease to grant now: what is asked, at most the longest, and never beyond this replica's own. 0: none."""
        if not self.granting:
            return 0.0
        seconds = min(asked_seconds, self.lease_seconds_max, self._lease.remaining_seconds(self._clock))
        return math.floor(seconds * 1000) / 1000

    def grant(self, watcher: Watcher, lease_seconds: float, acked: int) -> bool:
        """Records a lease, granted now. False if there are too many, of everybody's or of one subject's.

        A verifier without a record relies on this lease only once it was told everything up to the position granted,
        which is not below `applied`: so a new record never pulls that back.
        """
        applied = self.applied()
        assert applied is not None, "a lease is granted by a member only"
        if self.records.get(watcher.verifier_key) is None and (
            len(self.records) >= self._records_max
            or self.records.count_of(watcher.subject) >= self._records_per_subject_max
        ):
            return False
        until = recorder_end(self._clock.boottime(), lease_seconds)
        self.records.grant(watcher, until, max(acked, applied))
        self.records.acknowledge(watcher.verifier_key, acked)
        return True

    def acknowledge(self, watcher: Watcher, number: int) -> None:
        """The verifier has applied everything up to `number`."""
        self.records.acknowledge(watcher.verifier_key, number)

    def release(self, watcher: Watcher) -> None:
        """The verifier relies on no lease of this replica any more."""
        self.records.release(watcher.verifier_key)

    # Going away

    def drain(self) -> None:
        """Asks every verifier to move; grants nothing more."""
        self.draining = True
        for stream in self._attached.values():
            stream.wake()

    def drained(self) -> bool:
        """Whether the row may be deleted: every verifier released its lease, or that ran out
        (`test_a_row_stays_until_every_lease_is_released_or_over`)."""
        self.records.expire(self._clock.boottime())
        return self.draining and not len(self.records)

    def _begin(self, number: int, now: float) -> ChangeLog:
        return ChangeLog(number, now, ids_max=self._ids_kept_max)
