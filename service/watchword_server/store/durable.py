"""What a write has to be before anybody may rely on it: run to its end, and on the standby that it waited for.

A commit that waits for a synchronous standby and is cancelled gives up the wait and keeps the row: a retry then finds
it done, and a fail-over loses it. So nobody cancels one from here, and where somebody else did, it counts as not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from watchword_server.store.contract import StoreUnavailableError
from watchword_server.store.database import Connection

T = TypeVar("T")
# Where PostgreSQL's warning comes from: its text may be translated, this never is.
_WAITS_FOR_STANDBYS = "SyncRepWaitForLSN"


@contextmanager
def acknowledged(connection: Connection) -> Iterator[None]:
    """Raises StoreUnavailableError at the block's end if a commit in it is not known to be on the standby.

    (test_a_write_that_no_standby_confirmed_is_not_done)
    """
    warnings: list[Any] = []

    def hear(_: Connection, message: Any) -> None:
        if message.server_source_function == _WAITS_FOR_STANDBYS:
            warnings.append(message)

    connection.add_log_listener(hear)
    try:
        yield
    finally:
        connection.remove_log_listener(hear)
    if warnings:
        raise StoreUnavailableError("the database gave up waiting for its standby")


class Writes:
    """Runs writes to their end, whatever becomes of who asked; at most `count_max` at a time."""

    def __init__(self, *, count_max: int) -> None:
        self._count_max = count_max
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, write: Coroutine[Any, Any, T]) -> T:
        """What the write returns. Raises StoreUnavailableError instead of beginning it if it cannot."""
        if self._closed or len(self._under_way) >= self._count_max:
            write.close()
            raise StoreUnavailableError("the store is closed" if self._closed else "too many writes wait")
        task = asyncio.get_running_loop().create_task(write)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # Seen, even when the caller left.

    async def close(self) -> None:
        """Begins none any more, and waits for those under way."""
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
