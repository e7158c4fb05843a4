"""What is told about the verifiers attached here: for people, once a second at most, in one statement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from watchword.lease import Clock
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.records import Watcher
from watchword_server.replica.rounds import Rounds
from watchword_server.store.fleet_contract import Fleet, WatcherRow

REPORT_SECONDS: Final = 1.0
UNCHANGED_SECONDS_MAX: Final = 5.0
"""After which the same is reported again: leases were renewed meanwhile."""


class Report:
    """Writes the rows of this replica's watchers."""

    def __init__(self, fleet: Fleet, ledger: Ledger, clock: Clock) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._clock = clock
        self._reported: Sequence[tuple[bytes, bool, bool]] = ()
        self._reported_at = 0.0
        self._rounds = Rounds("reporting the verifiers", self._report, lambda: REPORT_SECONDS)

    async def run(self) -> None:
        """Until cancelled."""
        await self._rounds.run()

    async def _report(self) -> None:
        key = self._ledger.key
        if key is None:
            return
        rows = watcher_rows(self._ledger, key, self._clock.boottime())
        seen = [(row.verifier_key, row.attached, row.lag > 0) for row in rows]
        now = time.monotonic()
        if seen == self._reported and (not rows or now - self._reported_at < UNCHANGED_SECONDS_MAX):
            return
        await self._fleet.report(key, rows)
        self._reported, self._reported_at = seen, now


def watcher_rows(ledger: Ledger, replica: UUID, now: float) -> Sequence[WatcherRow]:
    """Everyone attached or with a lease at `now`, seconds of the replica's clock."""
    known = ledger.number or 0
    records = {record.watcher.verifier_key: record for record in ledger.records.all() if record.until > now}
    streams = {stream.watcher.verifier_key: stream for stream in ledger.streams}
    rows = [
        _row(replica, stream.watcher, known - stream.acked, records[key].until - now if key in records else 0.0, True)
        for key, stream in streams.items()
    ]
    return rows + [
        _row(replica, record.watcher, known - record.acked, record.until - now, False)
        for key, record in records.items()
        if key not in streams
    ]


def _row(replica: UUID, watcher: Watcher, lag: int, lease_remaining_seconds: float, attached: bool) -> WatcherRow:
    return WatcherRow(
        replica=replica,
        verifier_key=watcher.verifier_key,
        name=watcher.name,
        instance=watcher.instance,
        library=watcher.library,
        address=watcher.address,
        subject=watcher.subject,
        lag=max(0, lag),
        lease_remaining_seconds=lease_remaining_seconds,
        attached=attached,
    )
