"""What is past its retention goes, whole or not at all, and nothing else does, whoever asks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.store.support import EPOCH, MILLISECOND, WAIT_SECONDS_MAX, new_token, stored, until, waiting_for_locks
from watchword_server.store.contract import Issued, NewToken, RequestIdUsed
from watchword_server.store.database import Database
from watchword_server.store.partitions import AttachedPartition, Partition
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.purge import AUDIT_DAYS_MIN, LOCK_KEY, Purge, Retention, due, purge

DAY = timedelta(days=1)
KEPT = Retention(timedelta(days=30), timedelta(days=400))
TABLES = ("token_usage", "tokens", "audit_events")
STALL = 7_600
"""An advisory lock for the test to hold up a purge with."""
PURGE = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from watchword_server.store.database import Database
from watchword_server.store.purge import Retention, purge

async def main():
    database = await Database.open(sys.argv[1], pool_size_max=1)
    await purge(database, Retention(timedelta(days=30), timedelta(days=400)), now=datetime.now(UTC))

asyncio.run(main())
"""


def made(plain: psycopg.Connection, parent: str, *, ended_ago: timedelta, length: timedelta = DAY) -> Partition:
    """A partition that the servers would have made when it was time, with one row in it."""
    ends_at = datetime.now(UTC).replace(microsecond=0) - ended_ago
    partition = Partition(parent, ends_at - length, ends_at)
    lower, upper = partition.lower_bound, partition.upper_bound
    plain.execute("select ensure_partition(%s, %s, %s, %s)", [parent, partition.name, lower, upper])
    fill(plain, parent, UUID(int=upper.int - 1))
    return partition


def fill(plain: psycopg.Connection, parent: str, row_id: UUID) -> None:
    """One row."""
    columns = {
        "tokens": "(id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes)"
        " values (%s, now(), 'infinity', 1, '', '', '{}', '{}')",
        "token_usage": "(token_id, service, last_used_at, use_count, address, scopes, networks)"
        " values (%s, '', now(), 1, '', '{}', '{}')",
        "audit_events": "(id, action, actor, address, details) values (%s, '', '', '', '{}')",
    }
    plain.execute(f"insert into {parent} {columns[parent]}".encode(), [row_id])


def exist(plain: psycopg.Connection, *partitions: Partition) -> list[bool]:
    """Which of these are there."""
    rows = [plain.execute("select to_regclass(%s) is not null", [one.name]).fetchone() for one in partitions]
    return [row is not None and bool(row[0]) for row in rows]


async def purged(database: Database, retention: Retention = KEPT) -> Purge:
    """What one server does in one hour."""
    return await purge(database, retention, now=datetime.now(UTC))


@pytest.mark.parametrize(("parent", "kept"), [("tokens", 30), ("token_usage", 30), ("audit_events", 400)])
def test_partition_is_due_when_its_kept_days_are_over(parent: str, kept: int) -> None:
    ends_at = datetime(2027, 2, 1, tzinfo=UTC)
    partition = AttachedPartition(parent, f"{parent}_20270101", ends_at - 31 * DAY, ends_at)
    over = ends_at + kept * DAY
    assert due([partition], KEPT, over - MILLISECOND) == []
    assert due([partition], KEPT, over) == [partition]
    assert due([partition], KEPT, over + MILLISECOND) == [partition]


def test_partition_without_an_end_is_never_due() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    endless = [AttachedPartition("tokens", "tokens_20270101", None, end) for end in (None, last)]
    assert due(endless, KEPT, last) == []


async def test_what_is_past_goes_and_the_rest_stays(database: Database, plain: psycopg.Connection) -> None:
    past = [made(plain, parent, ended_ago=timedelta(days=500)) for parent in TABLES]
    later = [made(plain, parent, ended_ago=timedelta(days=450)) for parent in TABLES]
    kept = [made(plain, "tokens", ended_ago=timedelta(days=29)), made(plain, "audit_events", ended_ago=399 * DAY)]
    done = await purged(database)
    # What is known of a token's use goes before the token, and the oldest first.
    assert [one.name for one in done.dropped] == [
        one.name for parent in TABLES for one in (*past, *later) if one.parent == parent
    ]
    assert (done.put_off, done.by_hand, done.overdue) == ({}, [], timedelta())
    assert exist(plain, *past, *later, *kept) == [False] * 6 + [True] * 2
    assert (await purged(database)).dropped == []


async def test_nothing_goes_unless_both_clocks_agree(database: Database, plain: psycopg.Connection) -> None:
    past, future = made(plain, "tokens", ended_ago=timedelta(days=31)), datetime.now(UTC) + timedelta(days=3650)
    live = made(plain, "tokens", ended_ago=timedelta(days=-200))
    assert (await purge(database, KEPT, now=datetime.now(UTC) - 2 * DAY)).dropped == []
    assert [one.name for one in (await purge(database, KEPT, now=future)).dropped] == [past.name]
    assert exist(plain, live) == [True]


async def test_reads_go_on_over_what_was_dropped(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    """Their kept plans knew the partition."""
    partition = made(plain, "tokens", ended_ago=timedelta(days=31))
    gone, live = UUID(int=partition.upper_bound.int - 1), await stored(store)
    many = [uuid4() for _ in range(5)]
    assert (await store.read([gone, live])).rows.keys() == {gone, live}
    assert (await store.read([gone, live, *many])).rows.keys() == {gone, live}
    assert len((await purged(database)).dropped) == 1
    assert (await store.read([gone, live])).rows.keys() == {live}
    assert (await store.read([gone, live, *many])).rows.keys() == {live}
    assert isinstance(await store.issue(new_token()), Issued)


async def test_request_id_of_a_token_that_is_gone_is_still_used(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    partition = made(plain, "tokens", ended_ago=100 * DAY)
    template = new_token(request_id="once")
    record = template.record._replace(token_id=UUID(int=partition.lower_bound.int))
    assert isinstance(await store.issue(NewToken(record, template.actor, "once")), Issued)
    done = await purged(database, Retention(DAY, timedelta(days=400)))
    assert [one.name for one in done.dropped] == [partition.name]
    assert await store.issue(template) == RequestIdUsed(record.token_id)
    assert isinstance(await store.issue(new_token(request_id="another")), Issued)


async def test_long_reader_delays_the_purge_and_not_the_checks(
    database: Database, store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """A backup holds its lock on each table for as long as it takes."""
    partitions = [made(plain, parent, ended_ago=timedelta(days=500)) for parent in TABLES]
    second = made(plain, "tokens", ended_ago=timedelta(days=450))
    live = await stored(store)
    with psycopg.connect(ready_dsn) as backup:
        backup.execute("lock table tokens in access share mode")
        purging = asyncio.ensure_future(purged(database))
        reads = 0
        while not purging.done():
            assert (await store.read([live])).rows.keys() == {live}
            reads += 1
        done = await purging
        # It waits once, and not for each partition anew.
        assert done.put_off == {partitions[1].name: "LockNotAvailableError"}
        assert timedelta(days=469) < done.overdue < timedelta(days=471)
        assert exist(plain, *partitions, second) == [False, True, False, True]
        assert reads
        assert (await store.read([live])).rows.keys() == {live}
    assert len((await purged(database)).dropped) == 2
    assert exist(plain, *partitions, second) == [False] * 4


async def test_of_servers_that_purge_at_once_one_does(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    partitions = [made(plain, parent, ended_ago=timedelta(days=500)) for parent in TABLES]
    with psycopg.connect(ready_dsn) as other:
        other.execute("select pg_advisory_xact_lock(%s)", [LOCK_KEY])
        done = await purged(database)
        assert (done.dropped, done.put_off) == ([], {})
        assert done.overdue > timedelta(days=99)
        assert exist(plain, *partitions) == [True] * 3
    all_done = await asyncio.gather(*(purged(database) for _ in range(4)))
    assert sorted(one.name for done in all_done for one in done.dropped) == sorted(one.name for one in partitions)
    assert all(not done.put_off for done in all_done)


@pytest.mark.parametrize("step", ["waits for the lock", "has dropped and not committed"])
@pytest.mark.parametrize("parent", TABLES)
async def test_server_killed_while_it_purges_leaves_nothing_half_done(
    database: Database, plain: psycopg.Connection, ready_dsn: str, step: str, parent: str
) -> None:
    partitions = {each: made(plain, each, ended_ago=timedelta(days=500)) for each in TABLES}
    before = TABLES.index(parent)
    plain.execute("alter function drop_partition(text, text) set lock_timeout = '60s'")
    stalling(plain, partitions[parent].name)
    with psycopg.connect(ready_dsn) as holder:
        if step == "waits for the lock":
            holder.execute(f"lock table {partitions[parent].name} in access share mode".encode())
        else:
            holder.execute("select pg_advisory_xact_lock(%s)", [STALL])
        server = await asyncio.create_subprocess_exec(sys.executable, "-c", PURGE, ready_dsn)
        await waiting_for_locks(plain)
        server.kill()
        await server.wait()

    async def ended() -> bool:
        return plain.execute("select 1 from pg_locks where mode = 'AccessExclusiveLock'").fetchone() is None

    await until(ended)
    there = [False] * before + [True] * (len(TABLES) - before)
    assert exist(plain, *partitions.values()) == there
    for each in TABLES[before:]:
        assert plain.execute(f"select count(*) from {partitions[each].name}".encode()).fetchone() == (1,)
    done = await purged(database)
    assert [one.parent for one in done.dropped] == list(TABLES[before:])
    assert done.overdue == timedelta()


def stalling(plain: psycopg.Connection, name: str) -> None:
    """Has whoever drops that table wait for the test, in the same transaction, when it is gone."""
    plain.execute(
        f"""
        create function stall() returns event_trigger language plpgsql as $$ begin
          if exists (select from pg_event_trigger_dropped_objects() as gone where gone.object_name = '{name}') then
            perform pg_advisory_xact_lock_shared({STALL});
          end if;
        end $$
        """.encode()
    )
    plain.execute("create event trigger stall on sql_drop execute function stall()")


async def test_connection_lost_while_it_purges_leaves_nothing_half_done(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    partition = made(plain, "tokens", ended_ago=timedelta(days=500))
    plain.execute("alter function drop_partition(text, text) set lock_timeout = '60s'")
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("lock table tokens in access share mode")
        purging = asyncio.ensure_future(purged(database))
        await waiting_for_locks(plain)
        plain.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where wait_event_type = 'Lock' and datname = current_database()"
        )
        done = await asyncio.wait_for(purging, WAIT_SECONDS_MAX)
        assert done.dropped == []
        assert list(done.put_off) == [partition.name]
        assert exist(plain, partition) == [True]
    assert len((await purged(database)).dropped) == 1


async def test_partitions_made_by_hand_are_left_to_whoever_made_them(
    database: Database, plain: psycopg.Connection
) -> None:
    past = made(plain, "tokens", ended_ago=timedelta(days=500), length=timedelta(days=3, hours=5))
    lower = Partition("tokens", past.begins_at - 300 * DAY, past.begins_at)
    for name, bounds in (
        ("january", f"for values from ('{lower.lower_bound}') to ('{lower.upper_bound}')"),
        ("rest", "default"),
        ("before", f"for values from (minvalue) to ('{lower.lower_bound}')"),
    ):
        plain.execute(f"create table {name} partition of tokens {bounds}".encode())
    done = await purged(database)
    assert [one.name for one in done.dropped] == [past.name]
    assert sorted(done.by_hand) == ["before", "january"]
    assert done.overdue > timedelta(days=700)


async def test_partition_that_something_depends_on_is_put_off(database: Database, plain: psycopg.Connection) -> None:
    partitions = [made(plain, parent, ended_ago=timedelta(days=500)) for parent in TABLES]
    plain.execute(f"create view report as select id from {partitions[1].name}".encode())
    done = await purged(database)
    assert done.put_off == {partitions[1].name: "DependentObjectsStillExistError"}
    assert exist(plain, *partitions) == [False, True, False]


async def test_half_detached_partition_goes(database: Database, plain: psycopg.Connection, ready_dsn: str) -> None:
    """Somebody began to detach it by hand, and did not get to the end."""
    partition = made(plain, "tokens", ended_ago=timedelta(days=500))
    with psycopg.connect(ready_dsn) as reader, psycopg.connect(ready_dsn, autocommit=True) as hand:
        reader.execute("select count(*) from tokens")
        detaching = asyncio.ensure_future(
            asyncio.to_thread(
                hand.execute, f"alter table tokens detach partition {partition.name} concurrently".encode()
            )
        )
        await waiting_for_locks(plain)
        hand.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await detaching
    assert [one.name for one in (await purged(database)).dropped] == [partition.name]


@pytest.fixture
def bare(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to a database that was migrated and has no partitions yet."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def drop(bare: psycopg.Connection, parent: str, partition: str) -> object:
    """Asks the database itself."""
    row = bare.execute("select drop_partition(%s, %s)", [parent, partition]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("parent", TABLES)
def test_database_drops_nothing_that_is_not_past(bare: psycopg.Connection, parent: str) -> None:
    kept = AUDIT_DAYS_MIN * DAY if parent == "audit_events" else timedelta()
    over = made(bare, parent, ended_ago=kept + timedelta(seconds=2))
    not_over = made(bare, parent, ended_ago=kept - DAY)
    assert drop(bare, parent, over.name) is True
    assert drop(bare, parent, over.name) is False
    with pytest.raises(psycopg.errors.RaiseException, match="not past"):
        drop(bare, parent, not_over.name)
    assert exist(bare, not_over) == [True]


def test_database_drops_no_partition_whose_last_millisecond_is_not_over(bare: psycopg.Connection) -> None:
    """A bound in the midst of one leaves ids that begin with it on its lower side."""
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    for name, bound in (
        ("tokens_20990101", Partition("tokens", EPOCH, ends_at).upper_bound),
        ("tokens_20990102", UUID(int=Partition("tokens", EPOCH, datetime.now(UTC)).upper_bound.int + 1)),
    ):
        bare.execute(f"create table {name} partition of tokens for values from (minvalue) to ('{bound}')".encode())
        if name == "tokens_20990101":
            with pytest.raises(psycopg.errors.RaiseException, match="not past"):
                drop(bare, "tokens", name)
            bare.execute(f"drop table {name}".encode())
        else:
            assert drop(bare, "tokens", name) is True


@pytest.mark.parametrize("bounds", ["default", f"for values from ('{UUID(int=15 << 124)}') to (maxvalue)"])
def test_database_drops_no_partition_without_an_end(bare: psycopg.Connection, bounds: str) -> None:
    bare.execute(f"create table tokens_20990101 partition of tokens {bounds}".encode())
    with pytest.raises(psycopg.errors.RaiseException, match="not past"):
        drop(bare, "tokens", "tokens_20990101")


def test_database_drops_no_table_that_is_no_partition(bare: psycopg.Connection) -> None:
    past = made(bare, "tokens", ended_ago=timedelta(days=500))
    bare.execute(f"alter table tokens detach partition {past.name}".encode())
    assert drop(bare, "tokens", past.name) is False
    assert exist(bare, past) == [True]
    for parent, partition in (
        ("tokens", "tokens"),
        ("scopes", "scopes_20260101"),
        ("audit_events", past.name),
        ("tokens", f"{past.name}; drop table scopes"),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="not a partition"):
            drop(bare, parent, partition)
