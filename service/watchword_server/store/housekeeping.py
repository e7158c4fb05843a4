"""What the running service does in the background: partitions ahead, scope counts, what is old goes."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.partitions import ensure_partitions

_PRUNED_AT_ONCE: Final = 10_000


async def keep_house(database: Database, *, ttl_max: timedelta, partition_days: int | None) -> None:
    """One round of it. Several processes may do it at once; each part is safe to repeat. Raises StoreError."""
    await ensure_partitions(database, ttl_max=ttl_max, days=partition_days)
    async with database.connection() as connection:
        await connection.execute(query("forget_requests"))
        await connection.execute(query("count_scopes"))


async def forget(database: Database, *, changes_kept_seconds: float, chunk: int = _PRUNED_AT_ONCE) -> None:
    """Prunes changes that are older, about `chunk` ids in a transaction, and what replicas told that are gone.

    Where there is nothing to do it costs two small reads. Several processes may do it at once. Raises StoreError.
    """
    async with database.connection() as connection:

        async def prune(one: Connection) -> bool:
            async with one.transaction():
                pruned_to = await one.fetchval(query("forget_changes"), changes_kept_seconds, chunk)
                if pruned_to is not None:
                    await one.execute(query("forget_changes_to"), pruned_to)
                return pruned_to is not None

        while await retried(prune, connection):
            pass
        await connection.execute(query("forget_watchers"))
