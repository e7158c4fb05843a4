"""Which verifiers may still be relying on a lease, until when, and what each acknowledged.

A record is about what a verifier may do, so neither its stream nor its silence ends one: only time, or its own release.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who a verifier says it is, and who the pipeline says it is (`subject`, `address`)."""

    verifier_key: bytes
    name: str
    instance: str
    library: str
    address: str
    subject: str


@dataclass(slots=True)
class LeaseRecord:
    """One verifier's lease: over at `until` seconds of this machine's clock. `acked` is what it said it applied."""

    watcher: Watcher
    until: float
    acked: int


class LeaseRecords:
    """All records of one replica in one epoch. The least acknowledged position is at hand in amortised O(log n)."""

    def __init__(self) -> None:
        self._records: dict[bytes, LeaseRecord] = {}
        # Each record has one entry in `_ends`, at a time not after its end; it moves on when that time comes.
        self._ends: list[tuple[float, int, LeaseRecord]] = []
        self._order = count()
        self._of_subject: Counter[str] = Counter()
        self._acked: Counter[int] = Counter()
        self._numbers: list[int] = []

    def __len__(self) -> int:
        return len(self._records)

    def get(self, verifier_key: bytes) -> LeaseRecord | None:
        """The record of this verifier, if it has one."""
        return self._records.get(verifier_key)

    def count_of(self, subject: str) -> int:
        """How many records the verifiers of one subject have."""
        return self._of_subject[subject]

    def all(self) -> list[LeaseRecord]:
        """Every record."""
        return list(self._records.values())

    def grant(self, watcher: Watcher, until: float, acked: int) -> None:
        """Begins a record, or extends it; `acked` counts for a new one, an old one keeps its own."""
        record = self._records.get(watcher.verifier_key)
        if record is not None:
            record.watcher = watcher
            record.until = max(record.until, until)
            return
        record = LeaseRecord(watcher, until, acked)
        self._records[watcher.verifier_key] = record
        self._of_subject[watcher.subject] += 1
        heapq.heappush(self._ends, (until, next(self._order), record))
        self._count(acked)

    def acknowledge(self, verifier_key: bytes, number: int) -> None:
        """The verifier applied everything up to `number`. Never goes back."""
        record = self._records.get(verifier_key)
        if record is not None and number > record.acked:
            self._acked[record.acked] -= 1
            record.acked = number
            self._count(number)

    def release(self, verifier_key: bytes) -> None:
        """The verifier relies on nothing any more."""
        record = self._records.pop(verifier_key, None)
        if record is None:
            return
        self._acked[record.acked] -= 1
        subject = record.watcher.subject
        self._of_subject[subject] -= 1
        if not self._of_subject[subject]:
            del self._of_subject[subject]

    def expire(self, now: float) -> None:
        """Drops the records that ran out."""
        while (end := self.next_end()) is not None and end <= now:
            self.release(self._ends[0][2].watcher.verifier_key)

    def next_end(self) -> float | None:
        """When the next record runs out, by this machine's clock; None if there is none."""
        while self._ends:
            end, order, record = self._ends[0]
            if self._records.get(record.watcher.verifier_key) is not record:
                heapq.heappop(self._ends)
            elif record.until > end:
                heapq.heapreplace(self._ends, (record.until, order, record))
            else:
                return end
        return None

    def acked_min(self) -> int | None:
        """The least that any of them acknowledged; None if there is none."""
        while self._numbers:
            number = self._numbers[0]
            if self._acked[number]:
                return number
            heapq.heappop(self._numbers)
            del self._acked[number]
        return None

    def _count(self, number: int) -> None:
        if number not in self._acked:
            heapq.heappush(self._numbers, number)
        self._acked[number] += 1
