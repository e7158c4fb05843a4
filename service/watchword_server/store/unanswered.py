"""Notices statements whose answer was lost on the way, where nothing else does: on a connection that is half open.

A proxy or balancer that forgot a connection may go on to acknowledge what is sent on it, and then TCP sees nothing
wrong; and a write has no deadline, because a commit has to wait for its standby as long as that takes. So the server is
asked, over another connection, what became of it. Nothing is ever cancelled there: see store/durable.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import asyncpg

# Those of the backends $1 that may still answer: at work, or done less than $2 seconds ago. One whose state nobody may
# see, or that keeps none, counts as at work.
_AT_WORK: Final = """
    select pid from pg_stat_activity
    where pid = any($1::integer[]) and datname = current_database() and backend_type = 'client backend'
        and (
            state is null
            or state not like 'idle%'
            or state_change > clock_timestamp() - make_interval(secs => $2::double precision)
        )
"""
Connection = Any


class _Asked(NamedTuple):
    connection: Connection
    backend: int
    at: float


class Unanswered:
    """Statements that are under way and have no deadline."""

    def __init__(self) -> None:
        self._under_way: set[_Asked] = set()
        self._known: set[Connection] = set()

    def know(self, connection: Connection) -> None:
        """Remembers a connection for `drop_idle`, until it ends."""
        self._known.add(connection)
        connection.add_termination_listener(self._known.discard)

    @contextmanager
    def waiting(self, connection: Connection) -> Iterator[None]:
        """While the block waits for this connection's answers."""
        asked = _Asked(connection, connection.get_server_pid(), asyncio.get_running_loop().time())
        self._under_way.add(asked)
        try:
            yield
        finally:
            self._under_way.discard(asked)

    async def look(self, other: Connection, seconds: float) -> bool:
        """Hangs up where the server has had nothing to do for so many seconds, though it was asked before that.

        Whoever waits there hears that the database is unavailable; what was asked may have been done. What the server
        is still at, be it waiting for a lock or a standby, is left alone. Returns whether there was any to hang up on.
        Driver errors come out as they are. (test_a_commit_that_waits_for_its_standby_is_left_alone)
        """
        late = self._late(seconds)
        if not late:
            return False
        own = other.get_server_pid()
        backends = [own, *(asked.backend for asked in late)]
        rows = await other.fetch(_AT_WORK, backends, seconds, timeout=seconds)
        at_work = {row["pid"] for row in rows}
        # A pooler on the way gives out numbers of its own, which say nothing.
        lost = [asked for asked in late if asked.backend not in at_work] if own in at_work else []
        return self._hang_up(lost)

    def give_up(self, seconds: float) -> None:
        """Hangs up wherever an answer has been waited for so long: there is no way to the server to ask it."""
        self._hang_up(self._late(seconds))

    def drop_idle(self) -> None:
        """Hangs up on those on which nobody waits here: where one led nowhere, they will too, and nobody knows yet."""
        for connection in self._known - {asked.connection for asked in self._under_way}:
            connection.terminate()

    def _late(self, seconds: float) -> list[_Asked]:
        until = asyncio.get_running_loop().time() - seconds
        return [asked for asked in self._under_way if asked.at <= until]

    def _hang_up(self, lost: list[_Asked]) -> bool:
        # Some were answered meanwhile.
        lost = [asked for asked in lost if asked in self._under_way]
        for asked in lost:
            # The pool's knows it if it ended meanwhile.
            with suppress(asyncpg.InterfaceError):
                asked.connection.terminate()
        return bool(lost)
