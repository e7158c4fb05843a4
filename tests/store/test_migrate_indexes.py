"""Indexes are built while servers go on, and what an upgrade that was ended left is finished by the next."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.databases import Databases
from tests.store.support import WAIT_SECONDS_MAX, waiting_for_locks
from watchword_server.store import migrate
from watchword_server.store.database import Database
from watchword_server.store.partitions import Partition
from watchword_server.store.postgres import PostgresStore

UPGRADE = "import sys; from watchword_server.store import migrate; migrate.upgrade(sys.argv[1])"
MONTH = timedelta(days=30)
# Whoever has built an index that the test chose keeps its locks until advisory lock 1 is free.
HELD = """
create table held (name text);
create function hold() returns event_trigger language plpgsql set lock_timeout = '60s' as $$
begin
  perform pg_advisory_xact_lock(1)
  from pg_event_trigger_ddl_commands() inner join held on strpos(object_identity, held.name) > 0;
end $$;
create event trigger hold on ddl_command_end when tag in ('CREATE INDEX') execute function hold();
"""
ROW = """
insert into tokens (id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes)
values (%s, now(), now(), 1, '', '', '{}', '{}')
"""
# How many partitions lack an index of their parent's, have one that is not good, or one of its own beside it.
WRONG = """
with parents as (select unnest(array['tokens'::regclass, 'audit_events'::regclass]) as id),
     of_parents as (select parents.id as parent, pg_index.indexrelid as id
                    from parents inner join pg_index on pg_index.indrelid = parents.id),
     wanted as (select of_parents.id, pg_inherits.inhrelid as partition
                from of_parents inner join pg_inherits on pg_inherits.inhparent = of_parents.parent),
     there as (select pg_index.indrelid as partition, pg_inherits.inhparent as id
               from pg_index left join pg_inherits on pg_inherits.inhrelid = pg_index.indexrelid
               where pg_index.indisvalid
                 and pg_index.indrelid in (select partition from wanted))
select count(*) from wanted full join there using (id, partition) where wanted.id is null or there.id is null
"""


@pytest.fixture
def partitions() -> list[Partition]:
    """Of tokens, with room for two rows each."""
    begins = datetime.now(UTC)
    return [Partition("tokens", begins + MONTH * n, begins + MONTH * (n + 1)) for n in range(2)]


@pytest.fixture
def old_dsn(
    postgres: Databases, partitions: list[Partition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A database of before tokens had a lifecycle, with a token in each partition."""
    for script in sorted((Path(migrate.__file__).parent / "migrations").glob("000[12].*")):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    with postgres.fresh(migrated=False) as dsn:
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "_folder", lambda: tmp_path)
            migrate.upgrade(dsn)
        with psycopg.connect(dsn, autocommit=True) as plain:
            for one in [*partitions, Partition("audit_events", partitions[0].begins_at, partitions[0].ends_at)]:
                bounds = one.lower_bound, one.upper_bound
                plain.execute("select ensure_partition(%s, %s, %s, %s)", [one.parent, one.name, *bounds])
            for one in partitions:
                plain.execute(ROW, [one.lower_bound])
            plain.execute(HELD.encode())
        yield dsn


@asynccontextmanager
async def upgrade_held(dsn: str, at: Partition) -> AsyncIterator[psycopg.Connection]:
    """An upgrade in a process of its own, which has just built its first index on that partition and still holds what
    it locked; a connection that looks on. Ends when the upgrade has, which then goes on."""
    with psycopg.connect(dsn) as blocker, psycopg.connect(dsn, autocommit=True) as plain:
        plain.execute("insert into held values (%s)", [at.name])
        blocker.execute("select pg_advisory_xact_lock(1)")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", UPGRADE, dsn)
        try:
            await waiting_for_locks(plain)
            yield plain
        finally:
            blocker.rollback()
            await asyncio.wait_for(process.wait(), timeout=40)


async def test_tokens_are_read_while_an_index_is_built_and_other_partitions_written(
    old_dsn: str, partitions: list[Partition]
) -> None:
    database = await Database.open(old_dsn, pool_size_max=2)
    store = PostgresStore(database)
    async with upgrade_held(old_dsn, partitions[0]) as plain:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            ids = [one.lower_bound for one in partitions]
            assert set((await store.read(ids)).rows) == set(ids)
        plain.execute("set lock_timeout = '20s'")
        plain.execute(ROW, [UUID(int=partitions[1].upper_bound.int - 1)])
    await store.close()
    await database.close()
    assert migrate.upgrade(old_dsn) == []
    with psycopg.connect(old_dsn) as after:
        assert after.execute(WRONG).fetchone() == (0,)


async def test_ended_between_two_indexes_is_finished_by_the_next(old_dsn: str, partitions: list[Partition]) -> None:
    async with upgrade_held(old_dsn, partitions[1]) as plain:
        plain.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and wait_event_type = 'Lock'"
        )
    with psycopg.connect(old_dsn) as between:
        assert between.execute(WRONG).fetchone() != (0,)
    applied = await asyncio.wait_for(asyncio.to_thread(migrate.upgrade, old_dsn), timeout=20)
    assert applied == ["0004.token-lifecycle-indexes"]
    with psycopg.connect(old_dsn) as after:
        assert after.execute(WRONG).fetchone() == (0,)
