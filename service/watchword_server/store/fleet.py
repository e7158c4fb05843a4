"""The replicas of one database, and the feed of what became less valid: the contract's Fleet, on Postgres.

Each statement stands alone, so nothing that it reads is older than anything else in it, and nothing is left half done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from watchword_server.store.contract import StoreError
from watchword_server.store.database import WRITE_ATTEMPTS_MAX, Connection, Database, query
from watchword_server.store.durable import Writes
from watchword_server.store.feed import page_of
from watchword_server.store.fleet_contract import FeedPage, NewReplica, ReplicaRow, Roll, WatcherRow
from watchword_server.store.kept import Kept
from watchword_server.store.listener import APPLIED, PING_SECONDS, POSITIONS, Listener

CONNECTIONS_MAX: Final = 5
"""How many a fleet opens at most: its lanes, and the listener's."""
# A renewal must not wait behind a report, nor the feed behind a page of watchers.
_WRITE_LANES: Final = 2
_READ_LANES: Final = 2
_WRITES_MAX: Final = 64
_CLOSE_SECONDS_MAX: Final = 2.0


class PostgresFleet:
    """Implements watchword_server.store.contract.Fleet."""

    def __init__(
        self,
        database: Database,
        *,
        pepper_versions: Sequence[int] | None = None,
        read_timeout_seconds: float = 5,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._database = database
        # Told to whoever wants to drop one, the current one first.
        self._pepper_versions = pepper_versions
        self._connections: set[Connection] = set()
        self._kept = Kept(self._connect, database.unanswered)
        self._listener = Listener(
            database.connect, lost=self._lost, look=self._look, unreachable=self._give_up, ping_seconds=ping_seconds
        )
        self._ping_seconds = ping_seconds
        # A write has none: it may have to wait for a standby as long as that takes. See store/unanswered.py.
        self._read_timeout_seconds = read_timeout_seconds
        self._reading = asyncio.Semaphore(_READ_LANES)
        self._writing = asyncio.Semaphore(_WRITE_LANES)
        self._writes = Writes(count_max=_WRITES_MAX)

    def open(self) -> None:
        """Begins to listen for news."""
        self._listener.start()

    async def close(self) -> None:
        """Waits a little for writes under way, and closes all connections."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await self._writes.close()
        except TimeoutError:
            self._hang_up()
        await self._listener.close()
        await self._kept.close()

    async def epoch(self) -> UUID:
        """See the contract."""
        [row] = await self._read("fleet_epoch")
        if not row["here"]:
            await self._write("fleet_epoch_moved")
            [row] = await self._read("fleet_epoch")
        epoch: UUID = row["epoch"]
        return epoch

    async def begin_epoch(self, seen: UUID) -> UUID:
        """See the contract."""
        await self._write("fleet_epoch_begin", seen)
        return await self.epoch()

    async def join(self, replica: NewReplica) -> bool:
        """See the contract."""
        own = (replica.key, replica.epoch, replica.name, replica.lease_seconds, self._pepper_versions)
        return bool(await self._write("fleet_join", *own))

    async def renew(self, key: UUID, epoch: UUID) -> bool:
        """See the contract."""
        if await self._write("fleet_renew", key, epoch):
            return True
        # Gone, or this PostgreSQL is not the one that the epoch began in, which is then over; or nobody had looked.
        return await self.epoch() == epoch and bool(await self._write("fleet_renew", key, epoch))

    async def publish(self, key: UUID, epoch: UUID, applied: int) -> bool:
        """See the contract."""
        told = bool(await self._write("fleet_publish", key, epoch, applied))
        await self._announce()
        return told

    async def drain(self, key: UUID) -> None:
        """See the contract."""
        await self._write("fleet_drain", key)

    async def leave(self, key: UUID) -> None:
        """See the contract."""
        await self._write("fleet_leave", key)
        await self._announce()

    async def fence(self, key: UUID, renewals: int) -> bool:
        """See the contract."""
        gone = bool(await self._write("fleet_fence", key, renewals))
        await self._announce()
        return gone

    async def settle(self, epoch: UUID) -> None:
        """See the contract."""
        if await self._write("fleet_settle", epoch):
            await self._announce()

    async def roll(self) -> Roll:
        """See the contract."""
        return roll_of(await self._read("fleet_roll"))

    async def feed(self, after: int | None, mark: UUID | None, *, limit: int = 10_000) -> FeedPage:
        """See the contract."""
        return page_of(await self._read("fleet_feed", after, limit), after, mark)

    async def report(self, key: UUID, watchers: Sequence[WatcherRow]) -> None:
        """See the contract."""
        await self._write(
            "fleet_report",
            key,
            [watcher.verifier_key for watcher in watchers],
            [watcher.name for watcher in watchers],
            [watcher.instance for watcher in watchers],
            [watcher.library for watcher in watchers],
            [watcher.address for watcher in watchers],
            [watcher.subject for watcher in watchers],
            [watcher.lag for watcher in watchers],
            [watcher.lease_remaining_seconds for watcher in watchers],
            [watcher.attached for watcher in watchers],
        )

    async def watchers(self, *, limit: int, after: tuple[UUID, bytes] | None) -> Sequence[WatcherRow]:
        """See the contract."""
        rows = await self._read("fleet_watchers", limit, *(after or (None, None)))
        return [WatcherRow(**row) for row in rows]

    async def wait_for_news(self, timeout_seconds: float) -> None:
        """See the contract."""
        await self._listener.wait(POSITIONS, timeout_seconds)

    async def wait_for_applied(self, timeout_seconds: float) -> None:
        """See the contract."""
        await self._listener.wait(APPLIED, timeout_seconds)

    async def _connect(self) -> Connection:
        connection = await self._database.connect(generic_plans=True)
        self._connections.add(connection)
        connection.add_termination_listener(self._connections.discard)
        return connection

    def _hang_up(self) -> None:
        """Ends all connections: the server is gone, or says nothing, and what waits for it would wait for ever.

        That cancels nothing: a commit that waits for its standby goes on, and whoever asked does not know of it.
        """
        for connection in tuple(self._connections):
            connection.terminate()

    async def _lost(self) -> None:
        self._hang_up()
        await self._database.drop_idle()

    async def _look(self, connection: Connection) -> None:
        if await self._database.unanswered.look(connection, self._ping_seconds):
            await self._database.drop_idle()

    def _give_up(self) -> None:
        self._database.unanswered.give_up(self._ping_seconds)

    async def _read(self, name: str, *arguments: object) -> Sequence[Any]:
        async with self._reading:
            return await self._kept.fetch(query(name), *arguments, timeout=self._read_timeout_seconds)

    async def _write(self, name: str, *arguments: object) -> Sequence[Any]:
        return await self._writes.run(self._written(query(name), arguments))

    async def _written(self, sql: str, arguments: Sequence[object]) -> Sequence[Any]:
        async with self._writing:
            return await self._kept.fetch(sql, *arguments, attempts=WRITE_ATTEMPTS_MAX, durable=True)

    async def _announce(self) -> None:
        """Wakes whoever waits for a revocation to be complete. Not in the write's own transaction, because a commit
        that notifies holds a lock of the whole instance until the disk, and the standby, have it; nothing is lost with
        a hint."""
        with suppress(StoreError):
            async with self._reading:
                await self._kept.fetch("select pg_notify($1, '')", APPLIED, timeout=self._read_timeout_seconds)


def roll_of(rows: Sequence[Any]) -> Roll:
    """What queries/fleet_roll.sql read."""
    feed = rows[0]
    return Roll(
        epoch=feed["feed_epoch"],
        number=feed["position"],
        settled=feed["epoch_settled"],
        longest_lease_seconds=feed["longest_lease_seconds"],
        replicas=[
            ReplicaRow(
                key=row["key"],
                epoch=row["epoch"],
                name=row["name"],
                applied=row["applied"],
                renewals=row["renewals"],
                lease_seconds=row["lease_seconds"],
                draining=row["draining"],
                watchers_count=row["watchers_count"],
                renewed_ago_seconds=row["renewed_ago_seconds"],
            )
            for row in rows
            if row["key"] is not None
        ],
    )
