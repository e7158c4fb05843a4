"""Leases: how long somebody may rely on what he was told, by clocks that are never compared with one another.

Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency" (SOSP 1989).
Both sides count from their own clock. The holder counts from before it asked and a little short; whoever waits for a
lease to run out counts from after it was told and a little long. So with clocks that differ in rate by less than DRIFT
the holder always stops first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Protocol

DRIFT: Final = 0.005
"""By how much two clocks may differ in rate. Oscillators are a hundred times better, virtual machines not always."""
LEASE_SECONDS_DEFAULT: Final = 60.0
PAUSE_SECONDS_MAX: Final = 1.0
"""How far the wall clock may run ahead since the renewal before the machine counts as having been paused."""


class Clock(Protocol):
    """What a lease is judged by. Read at each decision, never cached, never replaced by a timer's flag."""

    def boottime(self) -> float:
        """Seconds that go on while the machine sleeps (CLOCK_BOOTTIME)."""
        ...

    def realtime(self) -> float:
        """Seconds of the wall clock (CLOCK_REALTIME). Only its advance is looked at."""
        ...


class ClockMissingError(Exception):
    """This platform has no CLOCK_BOOTTIME: no lease can be judged, so nothing may be cached."""


class SystemClock:
    """The clocks of this machine. Raises ClockMissingError where there is no CLOCK_BOOTTIME."""

    __slots__ = ()

    def __init__(self) -> None:
        if not hasattr(time, "CLOCK_BOOTTIME"):
            raise ClockMissingError("this platform has no CLOCK_BOOTTIME")
        try:
            self.boottime()
        except OSError:
            raise ClockMissingError("this platform has no CLOCK_BOOTTIME") from None

    def boottime(self) -> float:
        """See Clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def realtime(self) -> float:
        """See Clock."""
        return time.time()


@dataclass(frozen=True, slots=True)
class Instant:
    """Both clocks, read before something is sent."""

    boottime: float
    realtime: float


def instant(clock: Clock) -> Instant:
    """Now. The wall clock is read first: a pause between the two then shortens the lease, never lengthens it."""
    realtime = clock.realtime()
    return Instant(clock.boottime(), realtime)


def holder_end(sent_at: float, lease_seconds: float) -> float:
    """When the holder stops relying on a lease that it asked for at `sent_at`. Seconds of its own clock."""
    return sent_at + lease_seconds * (1 - DRIFT)


def recorder_end(received_at: float, lease_seconds: float) -> float:
    """When whoever granted, or watches, a lease may count it as over. Seconds of its own clock."""
    return received_at + lease_seconds * (1 + DRIFT)


class Lease:
    """What its holder knows of a lease. Begins lapsed."""

    __slots__ = ("_ahead", "_end", "_sent_at")

    def __init__(self) -> None:
        self._sent_at: float | None = None
        self._end = 0.0
        self._ahead = 0.0

    def renew(self, sent: Instant, lease_seconds: float) -> None:
        """Granted `lease_seconds`, asked for at `sent`. An answer to an older request changes nothing."""
        if self._sent_at is None or sent.boottime >= self._sent_at:
            self._sent_at = sent.boottime
            self._end = holder_end(sent.boottime, lease_seconds)
            self._ahead = sent.realtime - sent.boottime

    def lapse(self) -> None:
        """Ends it now."""
        self._sent_at = None

    def live(self, clock: Clock) -> bool:
        """Whether it may be relied on, by the clock as it is now."""
        if self._sent_at is None:
            return False
        now = clock.boottime()
        return now < self._end and clock.realtime() - now - self._ahead <= PAUSE_SECONDS_MAX

    def remaining_seconds(self, clock: Clock) -> float:
        """How much longer it may be relied on; 0 where it has lapsed, also because the machine was paused."""
        return max(0.0, self._end - clock.boottime()) if self.live(clock) else 0.0
