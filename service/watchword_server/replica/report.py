"""What is told about the verifiers attached here: for people, once a second at most, in one statement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from watchword_server.replica.ledger import Ledger
from watchword_server.replica.rounds import Rounds
from watchword_server.store.contract import Fleet, WatcherRow

REPORT_SECONDS: Final = 1.0
UNCHANGED_SECONDS_MAX: Final = 5.0
"""After which the same is reported again: leases were renewed meanwhile."""


class Report:
    """Writes the rows of this replica's watchers."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self._fleet = fleet
        self._ledger = ledger
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
        rows = [
            WatcherRow(
                replica=key,
                verifier_key=one.watcher.verifier_key,
                name=one.watcher.name,
                instance=one.watcher.instance,
                library=one.watcher.library,
                address=one.watcher.address,
                subject=one.watcher.subject,
                lag=one.lag,
                lease_remaining_seconds=one.lease_remaining_seconds,
                attached=one.attached,
            )
            for one in self._ledger.watchers()
        ]
        seen = [(row.verifier_key, row.attached, row.lag > 0) for row in rows]
        now = time.monotonic()
        if seen == self._reported and (not rows or now - self._reported_at < UNCHANGED_SECONDS_MAX):
            return
        await self._fleet.report(key, rows)
        self._reported, self._reported_at = seen, now
