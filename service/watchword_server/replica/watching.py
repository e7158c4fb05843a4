"""A verifier as its replica sees it. For people: nothing of the guarantee reads it."""

from __future__ import annotations

from dataclasses import dataclass

from watchword_server.replica.records import Watcher


@dataclass(frozen=True, slots=True)
class Watching:
    """`lag` counts positions it has not acknowledged; the lease counts by the replica's clock."""

    watcher: Watcher
    lag: int
    lease_remaining_seconds: float
    attached: bool
