"""Databases with partitions, and stores on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import conninfo

from tests.databases import Databases
from tests.store.support import DAYS, TTL_MAX, Counted
from watchword_server.store.database import Database
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.postgres import PostgresStore


@pytest.fixture(scope="session")
def partitioned(postgres: Databases) -> Iterator[str]:
    """A database that has been migrated and given its partitions once, to be copied."""

    async def prepare(dsn: str) -> None:
        database = await Database.open(dsn, pool_size_max=1)
        await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS)
        await database.close()

    with postgres.fresh() as made:
        asyncio.run(prepare(made))
        yield made


@pytest.fixture
def ready_dsn(postgres: Databases, partitioned: str) -> Iterator[str]:
    """A database of the test's own in which tokens can be stored."""
    template = str(conninfo.conninfo_to_dict(partitioned)["dbname"])
    with postgres.copy(template) as made:
        yield made


@pytest.fixture
async def database(ready_dsn: str) -> AsyncIterator[Database]:
    """Connections to it."""
    opened = await Database.open(ready_dsn, pool_size_max=8)
    yield opened
    await opened.close()


@pytest.fixture
async def counted(database: Database) -> AsyncIterator[Counted]:
    """A store that counts its statements and batches."""
    made = Counted(database)
    yield made
    await made.store.close()


@pytest.fixture
def store(counted: Counted) -> PostgresStore:
    """A store."""
    return counted.store


@pytest.fixture
async def other(ready_dsn: str) -> AsyncIterator[PostgresStore]:
    """Another server's store on the same database."""
    opened = await Database.open(ready_dsn, pool_size_max=4)
    made = PostgresStore(opened)
    yield made
    await made.close()
    await opened.close()


@pytest.fixture
def plain(ready_dsn: str) -> Iterator[psycopg.Connection]:
    """A connection that belongs to nobody's pool: it holds locks, looks behind the store's back, and does harm."""
    with psycopg.connect(ready_dsn, autocommit=True) as connection:
        yield connection
