"""Which calls are let in: so many at a time, and none while the event loop does not keep up with its work. Then the
watches lose no lease, whose renewals and acknowledgements wait in the same line.

Late is a loop that was at work for a quarter of a second and came to none of its timers. One that the machine gave no
time to, or that was paused with it, is late as well, but through nobody's calls: refusing those would mend nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from watchword_server.request.status import Answer, draining, overloaded

TURN_SECONDS: Final = 0.05
LATE_SECONDS: Final = 0.25


class Lateness:
    """Belongs to one loop, and its thread. Never late before it is `watched`."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, busy_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._busy_clock = busy_clock
        self._busy_until_turn = 0.0
        self._late = False
        self.due_at = math.inf
        """Before this instant, by `clock`, nobody needs to ask."""

    def late(self) -> bool:
        """Asked after `due_at`: whether the loop is behind, or was so at its last turn."""
        return self._late or self._busy_clock() - self._busy_until_turn > LATE_SECONDS

    def turn(self) -> None:
        """The loop came round to its timers. It has caught up once it does so in time."""
        now = self._clock()
        self._late = now > self.due_at and self._busy_clock() - self._busy_until_turn > LATE_SECONDS
        self._busy_until_turn = self._busy_clock()
        self.due_at = -math.inf if self._late else now + TURN_SECONDS + LATE_SECONDS

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Looks at the loop that runs the block."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            self.turn()
            await asyncio.sleep(TURN_SECONDS)


class Permits:
    """How many calls may be under way at once, and none while the loop is late. The native transport has no
    maximum_concurrent_rpcs."""

    def __init__(
        self, limit: int, lateness: Lateness | None = None, *, count_shed: Callable[[str], None] = lambda cause: None
    ) -> None:
        self.limit = limit
        self.under_way = 0
        self.lateness = lateness or Lateness()
        self._count_shed = count_shed
        self._draining = False

    def refuse_calls(self) -> None:
        """No more permits: the server is going away, and another one may take the call."""
        self.limit = 0
        self._draining = True

    def refusal(self) -> Answer:
        """What a call hears that gets no permit."""
        if self._draining:
            return draining()
        self._count_shed("limit" if self.under_way >= self.limit else "late")
        return overloaded()
