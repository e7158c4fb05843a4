"""Work that is done again and again, and that others can wait for: always for a round begun after they asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from watchword_server.store.contract import StoreError

RETRY_SECONDS_MIN: Final = 0.1
RETRY_SECONDS_MAX: Final = 2.0
_log = logging.getLogger("watchword")


class Rounds:
    """Does `work` every `every_seconds()`, and at once when somebody wants it; one round at a time.

    A round that fails for want of the database is tried again soon, and said in the log once until it succeeds.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], every_seconds: Callable[[], float]) -> None:
        self._name = name
        self._work = work
        self._every_seconds = every_seconds
        self._wanted = asyncio.Event()
        self._asking: list[asyncio.Future[None]] = []
        self._ending: list[asyncio.Future[None]] = []
        self._failures = 0

    def want(self) -> None:
        """A round should begin soon; any number of wishes make one."""
        self._wanted.set()

    def next(self) -> asyncio.Future[None]:
        """The end of a round that begins from now on. Raises that round's StoreError."""
        self._wanted.set()
        return self._wait(self._asking)

    def ended(self) -> asyncio.Future[None]:
        """The end of whichever round ends next, without asking for one. Raises nothing."""
        return self._wait(self._ending)

    def _wait(self, waiting: list[asyncio.Future[None]]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return future

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds()):
                    await self._wanted.wait()
            self._wanted.clear()
            asking, self._asking = self._asking, []
            failure: Exception | None = None
            try:
                await self._work()
            except Exception as error:
                failure = error
            for future in asking:
                if future.done():
                    continue
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)
            ending, self._ending = self._ending, []
            for future in ending:
                if not future.done():
                    future.set_result(None)
            await self._rest(failure)

    async def _rest(self, failure: Exception | None) -> None:
        if failure is None:
            if self._failures:
                _log.info("%s: again, after %d failures", self._name, self._failures)
            self._failures = 0
            return
        if not isinstance(failure, StoreError):
            # A defect. It must not end, unseen, what keeps the guarantee.
            _log.error("%s failed", self._name, exc_info=failure)
        elif not self._failures:
            _log.warning("%s put off: %s", self._name, type(failure.__cause__ or failure).__name__)
        self._failures += 1
        await asyncio.sleep(min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(self._failures, 8)))
