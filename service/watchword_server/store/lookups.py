"""The hot read: tokens by id, many callers to a query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Position, Snapshot, StoreUnavailableError
from watchword_server.store.database import Database, query
from watchword_server.store.gather import Gatherer
from watchword_server.store.rows import record_of


class Lookups:
    """Reads tokens at one position. Every answer is from a query sent after the request for it arrived."""

    def __init__(
        self,
        database: Database,
        *,
        timeout_seconds: float,
        queue_max: int,
        batch_max: int = 512,
        lanes: int = 2,
        linger_seconds: float = 0.002,
        observe: Callable[[int], None],
        count: Callable[[str], None],
    ) -> None:
        self._database = database
        self._count = count
        self._timeout_seconds = timeout_seconds
        self._sql = query("read")
        self._gatherer: Gatherer[Sequence[UUID], Snapshot] = Gatherer(
            self._send,
            batch_max=batch_max,
            queue_max=queue_max,
            lanes=lanes,
            linger_seconds=linger_seconds,
            observe=observe,
        )

    def submit(self, token_ids: Sequence[UUID]) -> asyncio.Future[Snapshot]:
        """One snapshot that holds these ids' rows."""
        return self._gatherer.submit(token_ids)

    async def _send(self, requests: Sequence[Sequence[UUID]]) -> Sequence[Snapshot]:
        ids = {token_id for request in requests for token_id in request}
        try:
            rows = await self._fetch(ids)
        except StoreUnavailableError:
            # A connection that died while it lay idle is noticed at its next use. A read may simply be done again.
            rows = await self._fetch(ids)
        return [snapshot_of(rows)] * len(requests)

    async def _fetch(self, ids: set[UUID]) -> Sequence[Any]:
        try:
            # Around all of it: waiting for a connection that others hold is waiting too.
            async with asyncio.timeout(self._timeout_seconds), self._database.connection() as connection:
                self._count("read")
                rows: Sequence[Any] = await connection.fetch(self._sql, ids)
                return rows
        except TimeoutError as error:
            raise StoreUnavailableError("the database did not answer in time") from error

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._gatherer.close()


def snapshot_of(rows: Sequence[Any]) -> Snapshot:
    """The rows of read.sql as one snapshot."""
    first: Any = rows[0]
    records: dict[UUID, TokenRecord] = {}
    if first["id"] is not None:
        for row in rows:
            records[row["id"]] = record_of(row)
    return Snapshot(records, Position(first["feed_epoch"], first["feed_position"]), first["read_at"])
