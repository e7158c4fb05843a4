"""A write counts as done only once it is where an acknowledged one has to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.store.support import WAIT_SECONDS_MAX, until
from watchword_server.store.contract import StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.durable import Writes
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[PostgresFleet]:
    made = PostgresFleet(database)
    yield made
    await made.close()


@asynccontextmanager
async def standby_missing(fleet: PostgresFleet, plain: psycopg.Connection) -> AsyncIterator[None]:
    """While it lasts, every commit of the whole server waits for a standby that is not there, save those of `plain`."""
    plain.execute("set synchronous_commit = local")
    plain.execute("alter system set synchronous_standby_names = 'nobody'")
    plain.execute("select pg_reload_conf()")
    try:
        epoch = await fleet.epoch()
        while True:
            # The server takes up its configuration at a moment of its own.
            joining = asyncio.ensure_future(fleet.join(NewReplica(uuid4(), epoch, "probe", 60)))
            if await waits_for_standby(joining, plain):
                break
        await given_up(joining, plain)
        plain.execute("delete from replicas")
        yield
    finally:
        plain.execute("alter system reset synchronous_standby_names")
        plain.execute("select pg_reload_conf()")


def waiting_backend(plain: psycopg.Connection) -> int | None:
    row = plain.execute(
        "select pid from pg_stat_activity where datname = current_database() and wait_event = 'SyncRep'"
    ).fetchone()
    return None if row is None else int(row[0])


async def waits_for_standby(writing: asyncio.Future[bool], plain: psycopg.Connection) -> bool:
    """Whether the write waits for a standby, as soon as it does or is done."""

    async def known() -> bool:
        return writing.done() or waiting_backend(plain) is not None

    await until(known)
    return not writing.done()


async def given_up(writing: asyncio.Future[bool], plain: psycopg.Connection) -> None:
    """Ends the wait as an administrator may, and a driver does whose caller gave up."""
    plain.execute("select pg_cancel_backend(%s)", [waiting_backend(plain)])
    with pytest.raises(StoreUnavailableError):
        await writing


async def test_a_write_that_no_standby_confirmed_is_not_done(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    epoch = await fleet.epoch()
    one, two = uuid4(), uuid4()
    async with standby_missing(fleet, plain):
        for write in (
            fleet.join(NewReplica(one, epoch, "one", 60)),
            fleet.join(NewReplica(two, epoch, "two", 60)),
            fleet.renew(one, epoch),
            fleet.publish(one, epoch, 0),
            fleet.fence(two, 0),
        ):
            writing = asyncio.ensure_future(write)
            assert await waits_for_standby(writing, plain)
            await given_up(writing, plain)
    # The rows are there all the same: that is why it must not be taken for done.
    rows = (await fleet.roll()).replicas
    assert [(row.key, row.renewals, row.applied) for row in rows] == [(one, 1, 0)]


async def test_a_write_waits_for_its_standby_although_its_caller_left(
    fleet: PostgresFleet, plain: psycopg.Connection
) -> None:
    epoch = await fleet.epoch()
    key = uuid4()
    async with standby_missing(fleet, plain):
        joining = asyncio.ensure_future(fleet.join(NewReplica(key, epoch, "one", 60)))
        assert await waits_for_standby(joining, plain)
        backend = waiting_backend(plain)
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        # A trip to the database later it waits as before.
        assert await fleet.epoch() == epoch
        assert waiting_backend(plain) == backend

    async def there() -> bool:
        return [row.key for row in (await fleet.roll()).replicas] == [key]

    assert await until(there)


async def test_writes_that_cannot_begin_say_so() -> None:
    writes = Writes(count_max=1)
    release = asyncio.Event()
    done: list[UUID] = []

    async def write() -> None:
        await release.wait()
        done.append(uuid4())

    first = asyncio.ensure_future(writes.run(write()))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await writes.run(write())
    closing = asyncio.ensure_future(writes.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await writes.run(write())
    release.set()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await asyncio.gather(first, closing)
    assert len(done) == 1
