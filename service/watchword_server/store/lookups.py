"""The hot read: tokens by id, many callers to a query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Position, Snapshot, StoreUnavailableError
from watchword_server.store.database import Database, query
from watchword_server.store.gather import Gatherer
from watchword_server.store.kept import Kept
from watchword_server.store.rows import record_of

# A lone check reads its caller's token and the one it asks about.
FEW: Final = 2
IDS_MAX: Final = 2_048
"""In one statement."""


class Lookups:
    """Reads tokens at one position. Every answer is from a query sent after the request for it arrived."""

    def __init__(
        self,
        database: Database,
        *,
        timeout_seconds: float,
        observe: Callable[[int], None],
        count: Callable[[str], None],
    ) -> None:
        self._few = Kept(lambda: database.connect(generic_plans=True), database.unanswered)
        self._many = Kept(database.connect, database.unanswered)
        self._count = count
        self._timeout_seconds = timeout_seconds
        self._read_few = query("read_few")
        self._read_many = query("read_many")
        self._gatherer: Gatherer[Sequence[UUID], Snapshot] = Gatherer(
            self._send,
            batch_max=IDS_MAX,
            weigh=len,
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
        self._count("read")
        if len(ids) > FEW:
            return await self._many.fetch(self._read_many, ids, timeout=self._timeout_seconds)
        few = (*ids, *ids)[:FEW]
        return await self._few.fetch(self._read_few, *few, timeout=self._timeout_seconds)

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._gatherer.close()
        await self._few.close()
        await self._many.close()


def snapshot_of(rows: Sequence[Any]) -> Snapshot:
    """The rows of read_few.sql or read_many.sql as one snapshot."""
    first: Any = rows[0]
    records: dict[UUID, TokenRecord] = {}
    if first["id"] is not None:
        for row in rows:
            records[row["id"]] = record_of(row)
    read_at = datetime.fromtimestamp(first["read_at"], UTC)
    return Snapshot(records, Position(first["feed_epoch"], first["feed_position"]), read_at)
