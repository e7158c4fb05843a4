"""What is counted of tokens' use in memory goes to the database: once in an interval, and once more at the end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

from watchword_server.answer.alarms import Alarms
from watchword_server.answer.usage import UsageBuffer
from watchword_server.observe.metrics import Metrics
from watchword_server.store.contract import PartitionMissingError, RowRefusedError, StoreError, Use
from watchword_server.store.database import Database
from watchword_server.store.event_contract import NEW_NETWORK
from watchword_server.store.usage import meant, store_uses

ROWS_AT_A_TIME: Final = 1_000
REFUSED_MAX: Final = 1_000
"""How many reports of refused calls wait to be looked at. More is no more news."""
REFUSED_PER_SERVICE_MAX: Final = 250
"""Of them by one service: what it makes up must not keep others from being heard."""
LAST_FLUSH_SECONDS_MAX: Final = 3.0
_log = logging.getLogger("watchword")


class UsageKeeper:
    """Takes what verifiers report, and stores what has come together while `running`.

    Every server begins at a moment of its own, so that they do not all write at once. What cannot be stored stays in
    memory for the next time, within the buffer's bounds.
    """

    def __init__(
        self,
        buffer: UsageBuffer,
        alarms: Alarms,
        database: Database,
        metrics: Metrics,
        *,
        interval_seconds: float,
        slack: timedelta,
        clock: Callable[[], float],
    ) -> None:
        self._buffer = buffer
        self._alarms = alarms
        self._database = database
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._slack = slack
        self._clock = clock
        self._refused: list[Use] = []

    def reported(self, admitted: Sequence[Use], refused: Sequence[Use]) -> None:
        """What a verifier admitted from memory since it last told, and which calls it refused."""
        self._buffer.add(admitted)
        if refused:
            own = sum(use.service == refused[0].service for use in self._refused)
            self._refused += refused[: min(REFUSED_MAX - len(self._refused), REFUSED_PER_SERVICE_MAX - own)]

    async def flush(self) -> None:
        """Stores what is there by now. Raises StoreError, and keeps the rest, when the database cannot take it."""
        left = len(self._buffer)
        while left > 0 and (uses := self._buffer.take(min(ROWS_AT_A_TIME, left))):
            left -= len(uses)
            await self._store(uses)
        refused = tuple(self._refused)
        for use in await meant(self._database, refused):
            self._alarms.bound_refused(use)
        del self._refused[: len(refused)]

    async def _store(self, uses: Sequence[Use]) -> None:
        began = self._clock()
        try:
            rows, new_networks = await store_uses(self._database, uses, slack=self._slack)
        except BaseException as error:
            if _passes(error):
                # What was stored all the same is counted twice then.
                self._buffer.give_back(uses, self._clock() - began)
                raise
            # Nothing that is counted could be refused; but a defect must not keep all that comes later.
            _log.exception("uses of tokens refused")
            self._buffer.drop(uses)
            return
        self._metrics.usage_rows += rows
        for _ in range(new_networks):
            self._metrics.alarms.add(NEW_NETWORK)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stores while the block runs, and once more at its end, for at most LAST_FLUSH_SECONDS_MAX."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self._keep(stopping))
        try:
            yield
        finally:
            stopping.set()
            # What is under way is not given up at once: its commit may be done already, and would be done again.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSH_SECONDS_MAX):
                    await task
            if len(self._buffer):
                _log.warning("uses of %d tokens are lost: the database cannot be reached", len(self._buffer))

    async def _keep(self, stopping: asyncio.Event) -> None:
        # Only to spread the servers.
        wait_seconds = self._interval_seconds * random.random()  # noqa: S311
        failing = False
        last = False
        while not last:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await stopping.wait()
            last = stopping.is_set()
            try:
                await self.flush()
                failing = False
            except StoreError as error:
                if not failing:
                    _log.warning("storing uses put off: %s", type(error.__cause__ or error).__name__)
                failing = True
            except Exception:
                # A defect, which must not end this unseen.
                _log.exception("storing uses failed")
            wait_seconds = self._interval_seconds


def _passes(error: BaseException) -> bool:
    """Whether the same may be stored at another time."""
    if isinstance(error, RowRefusedError):
        return isinstance(error, PartitionMissingError)
    return isinstance(error, StoreError) or not isinstance(error, Exception)
