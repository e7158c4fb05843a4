"""A revocation counts as done only once its commit was acknowledged, by the standby too where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg
import pytest

from tests.store.support import live, revocation, stored, until
from tests.store.test_durable import standby_missing, waiting_backend
from watchword_server.store.contract import Revoked, StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.postgres import PostgresStore


@asynccontextmanager
async def unconfirmed(
    database: Database, store: PostgresStore, plain: psycopg.Connection, token_id: UUID
) -> AsyncIterator[tuple[asyncio.Future[Revoked], int]]:
    """A revocation whose commit waits for a standby that is not there, and its backend."""
    fleet = PostgresFleet(database)
    # It notes where the database is, which is a write: before no write comes to an end.
    await fleet.epoch()
    async with standby_missing(fleet, plain):
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=token_id)))

        async def waiting() -> int | None:
            return waiting_backend(plain)

        yield ending, await until(waiting)
    await fleet.close()


async def test_revocation_that_no_standby_confirmed_is_not_done(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    async with unconfirmed(database, store, plain, token_id) as (ending, backend):
        plain.execute("select pg_cancel_backend(%s)", [backend])
        with pytest.raises(StoreUnavailableError):
            await ending
    # The row is there all the same. So whoever tries again writes again, and waits again.
    assert await live(store, token_id) == set()
    again = await store.revoke(revocation(token_id=token_id))
    assert (again.count, again.position.number) == (0, 2)


async def test_revocation_whose_answer_is_lost_is_not_done(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    async with unconfirmed(database, store, plain, token_id) as (ending, backend):
        plain.execute("select pg_terminate_backend(%s)", [backend])
        with pytest.raises(StoreUnavailableError):
            await ending
    assert (await store.revoke(revocation(token_id=token_id))).position.number == 2


async def test_revocation_waits_for_its_standby_although_its_caller_left(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    async with unconfirmed(database, store, plain, token_id) as (ending, backend):
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        # Trips to the database later it waits as before.
        assert await live(store, token_id) == {token_id}
        assert waiting_backend(plain) == backend

    async def ended() -> bool:
        return not await live(store, token_id)

    assert await until(ended)


async def test_commit_is_not_cancelled_with_its_store(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    """A cancelled commit would be kept without its standby. One that lost its client waits on."""
    token_id = await stored(store)
    other = PostgresStore(database)
    async with unconfirmed(database, other, plain, token_id) as (ending, backend):
        await other.close(patience_seconds=0)
        with pytest.raises(StoreUnavailableError):
            await ending
        assert await live(store, token_id) == {token_id}
        assert waiting_backend(plain) == backend
