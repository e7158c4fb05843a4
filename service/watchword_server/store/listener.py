"""Hears of news by LISTEN, on a connection of its own that is watched and made anew whenever it ends.

News is a hint: what it hints at is read from the tables, by whoever waits, and also when nothing was heard for a while.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import asyncpg

from watchword_server.store.database import DRIVER_ERRORS, Connection

POSITIONS: Final = "watchword_news"
APPLIED: Final = "watchword_applied"
"""Apart, because each replica tells what it applied: one channel would have every replica read the feed for each of
the others."""
# asyncpg never notices a dead peer by itself on a connection that only listens.
PING_SECONDS: Final = 5.0
_BACKOFF_SECONDS_MIN: Final = 0.1
_BACKOFF_SECONDS_MAX: Final = 5.0


class Listener:
    """Wakes whoever waits for news. A connection made anew is news too: nobody knows what was missed without it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        lost: Callable[[], Awaitable[None]],
        look: Callable[[Connection], Awaitable[None]],
        unreachable: Callable[[], None],
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        """`lost` is called whenever the connection ended, or led to a server that says nothing, and `unreachable` when
        no other led to one that says anything. `look` may use the connection at every ping."""
        self._connect = connect
        self._lost = lost
        self._look = look
        self._unreachable = unreachable
        self._ping_seconds = ping_seconds
        self._next = {channel: asyncio.Event() for channel in (POSITIONS, APPLIED)}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to listen. While there is no connection, there is no news."""
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def wait(self, channel: str, timeout_seconds: float) -> None:
        """Returns at the next news of a channel, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._next[channel].wait()

    async def _listen(self) -> None:
        backoff_seconds = _BACKOFF_SECONDS_MIN
        while True:
            with suppress(*DRIVER_ERRORS):
                connection = await self._connected()
                try:
                    async with asyncio.timeout(self._ping_seconds):
                        for channel in self._next:
                            await connection.add_listener(channel, self._heard)
                    for channel in self._next:
                        self._tell(channel)
                    backoff_seconds = _BACKOFF_SECONDS_MIN
                    await self._watched(connection)
                finally:
                    connection.terminate()
                    await self._lost()
            # Not all servers at the same moment.
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1))  # noqa: S311  # nobody gains by guessing it
            backoff_seconds = min(2 * backoff_seconds, _BACKOFF_SECONDS_MAX)

    async def _connected(self) -> Connection:
        try:
            return await self._connect()
        except (OSError, TimeoutError):
            self._unreachable()
            raise

    def _heard(self, _connection: object, _backend: int, channel: str, _payload: str) -> None:
        self._tell(channel)

    def _tell(self, channel: str) -> None:
        self._next[channel].set()
        self._next[channel] = asyncio.Event()

    async def close(self) -> None:
        """Stops listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watched(self, connection: Connection) -> None:
        """Returns, or raises a driver's error, when the connection has ended or leads to a standby."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        while not ended.is_set() and not connection.is_closed():
            if await connection.fetchval("select pg_is_in_recovery()", timeout=self._ping_seconds):
                raise asyncpg.ReadOnlySQLTransactionError("the server was demoted")
            await self._look(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ping_seconds):
                    await ended.wait()
