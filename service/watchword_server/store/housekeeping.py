"""What the running service does in the background: partitions ahead, scope counts, old request ids."""

from __future__ import annotations

from datetime import timedelta

from watchword_server.store.database import Database, query
from watchword_server.store.partitions import ensure_partitions


async def keep_house(database: Database, *, ttl_max: timedelta, partition_days: int | None) -> None:
    """One round of it. Several processes may do it at once; each part is safe to repeat. Raises StoreError."""
    await ensure_partitions(database, ttl_max=ttl_max, days=partition_days)
    async with database.connection() as connection:
        await connection.execute(query("forget_requests"))
        await connection.execute(query("count_scopes"))
