"""What the tables take, partition by partition."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg

from tests.store.support import stored, waiting_for_locks
from watchword_server.store.database import Database
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.sizes import TableSize, table_sizes


async def _sizes(database: Database) -> dict[str, TableSize]:
    async with database.connection() as connection:
        return {table.name: table for table in await table_sizes(connection)}


async def test_every_table_and_partition_with_its_size(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    for number in range(5):
        await stored(store, f"subject-{number}")
    plain.execute("analyze")
    sizes = await _sizes(database)
    assert {"tokens", "token_usage", "audit_events", "scopes", "feed", "replicas", "issue_requests"} <= sizes.keys()
    for name, table in sizes.items():
        row = plain.execute(
            "select coalesce(sum(pg_total_relation_size(relid)), 0)"
            " from pg_partition_tree(%s) where isleaf and relid <> %s::regclass",
            [name, name],
        ).fetchone()
        if table.partitions:
            assert row == (table.size_bytes,)
            assert table.size_bytes == sum(part.size_bytes for part in table.partitions)
        assert table.size_bytes > 0 or table.name.startswith(("yoyo", "_yoyo"))
    tokens = sizes["tokens"]
    assert tokens.rows_estimate == 5
    now, ends = datetime.now(UTC), [part.partition.ends_at for part in tokens.partitions]
    [holding] = [part for part in tokens.partitions if part.rows_estimate]
    assert holding.partition.begins_at is not None
    assert holding.partition.ends_at is not None
    assert holding.partition.begins_at <= now + timedelta(days=1) < holding.partition.ends_at
    assert ends == sorted(ends, key=lambda end: end or now)
    assert list(sizes) == [one.name for one in sorted(sizes.values(), key=lambda one: -one.size_bytes)]


async def test_database_without_a_schema_has_no_sizes(plain: psycopg.Connection, database: Database) -> None:
    plain.execute("alter table tokens rename to others")
    assert await _sizes(database) == {}


async def test_a_partition_that_is_dropped_meanwhile_has_no_size(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """In older releases (16.2, say) its bounds are an error."""
    plain.execute("create table by_hand partition of tokens default")
    with psycopg.connect(ready_dsn) as dropping:
        dropping.execute("drop table by_hand")
        reading = asyncio.ensure_future(_sizes(database))
        await waiting_for_locks(plain)
    assert "by_hand" not in {part.partition.name for part in (await reading)["tokens"].partitions}
