"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """A watchword.lease.Clock. Tests set and move both of its faces."""

    def __init__(self, boottime: float = 1_000.0, realtime: float = 1_700_000_000.0) -> None:
        self.boottime_now = boottime
        self.realtime_now = realtime

    def boottime(self) -> float:
        return self.boottime_now

    def realtime(self) -> float:
        return self.realtime_now

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.boottime_now += seconds
        self.realtime_now += seconds

    def pause(self, seconds: float) -> None:
        """The machine stands still, as a paused virtual machine does, and only the wall clock is set right after."""
        self.realtime_now += seconds
