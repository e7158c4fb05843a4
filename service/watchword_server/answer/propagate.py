"""How far a revocation has got when its caller is answered, and for how long that is waited for."""

from __future__ import annotations

from typing import Final, Protocol

from watchword_server.replica.propagation import Reached
from watchword_server.store.contract import Position

# Kept of the caller's deadline, so that "pending" still arrives.
MARGIN_SECONDS_MIN: Final = 0.05
MARGIN_SHARE: Final = 0.05


class Propagation(Protocol):
    """What knows of the other servers."""

    async def wait(self, position: Position, seconds: float) -> Reached:
        """Waits until a committed position is applied everywhere, at most so long."""
        ...


class Propagating:
    """Waits for revocations that are committed, no longer than their callers can."""

    def __init__(self, propagation: Propagation, *, wait_seconds_max: float) -> None:
        self._propagation = propagation
        self._wait_seconds_max = wait_seconds_max

    async def reached(self, position: Position, *, wait: bool, seconds_left: float | None) -> Reached:
        """How far `position` got, in what the caller's deadline and `wait` leave. None is no deadline."""
        seconds = self._wait_seconds_max if wait else 0.0
        if seconds_left is not None:
            seconds = min(seconds, seconds_left - max(MARGIN_SECONDS_MIN, MARGIN_SHARE * seconds_left))
        return await self._propagation.wait(position, max(0.0, seconds))
