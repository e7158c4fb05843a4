"""Migrations are applied once, by one at a time, whatever became of whoever tried before."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.databases import Databases
from tests.store.support import waiting_for_locks
from watchword_server.store import migrate

PASSWORD = "canary-of-a-password"
KNOWN = sorted(path.stem for path in (Path(migrate.__file__).parent / "migrations").glob("*.sql"))
UPGRADE = "import sys; from watchword_server.store import migrate; migrate.upgrade(sys.argv[1])"


@pytest.fixture
def empty_dsn(postgres: Databases) -> Iterator[str]:
    with postgres.fresh(migrated=False) as made:
        yield made


def test_upgrade_applies_everything_once(empty_dsn: str) -> None:
    assert migrate.upgrade(empty_dsn) == KNOWN
    assert migrate.upgrade(empty_dsn) == []


def test_status_says_what_is_missing_and_when_the_rest_was_applied(empty_dsn: str) -> None:
    missing = migrate.status(empty_dsn)
    assert [state.name for state in missing] == KNOWN
    assert all(state.applied_at is None for state in missing)
    migrate.upgrade(empty_dsn)
    for state in migrate.status(empty_dsn):
        assert state.applied_at is not None
        assert abs(datetime.now(UTC) - state.applied_at) < timedelta(hours=1)


def test_status_changes_nothing(empty_dsn: str) -> None:
    migrate.status(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_servers_that_start_at_once_take_turns(empty_dsn: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        applied = list(pool.map(migrate.upgrade, [empty_dsn] * 3))
    assert sorted(applied) == [[], [], KNOWN]


async def test_killed_upgrade_leaves_nothing_behind(empty_dsn: str) -> None:
    """Neither half of a migration, nor a lock that the next one would wait for."""
    with psycopg.connect(empty_dsn, autocommit=True) as plain:
        with psycopg.connect(empty_dsn) as blocker:
            # The upgrade stops in the middle: somebody else is just making a table of that name.
            blocker.execute("create table scopes ()")
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", UPGRADE, empty_dsn)
            await waiting_for_locks(plain)
            process.kill()
            await process.wait()
            blocker.rollback()
        applied = await asyncio.wait_for(asyncio.to_thread(migrate.upgrade, empty_dsn), timeout=20)
        assert applied == KNOWN
        assert plain.execute("select count(*) from feed").fetchone() == (1,)


@pytest.mark.parametrize("work", [migrate.upgrade, migrate.status])
@pytest.mark.parametrize("address", ["127.0.0.1:1/db", "host.invalid/db", "/db?host=/nonexistent", "a:b:c/db"])
def test_error_shows_nothing_of_the_connection_string(work: object, address: str) -> None:
    assert callable(work)
    with pytest.raises(migrate.MigrationError) as caught:
        work(f"postgresql://user:{PASSWORD}@{address}")
    assert PASSWORD not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None


def test_error_of_the_server_is_told_in_its_own_sentence(postgres: Databases) -> None:
    with pytest.raises(migrate.MigrationError, match=r'^database "no_such_database" does not exist$'):
        migrate.status(postgres.dsn("no_such_database"))
