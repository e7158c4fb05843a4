"""Reads share queries, and each is as of its own arrival or later."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from tests.store.support import Counted, live, new_token, position, revocation, stored, waiting_for_locks
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import NewToken, Position, StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.postgres import PostgresStore


async def test_what_was_issued_is_read_back_whole(store: PostgresStore) -> None:
    grant = Grant(("orders.*",), ("team/*",), ("orders",))
    token = new_token("team/a", audiences=["orders", "*"], scopes=["orders.read", "orders.*"], grants=[grant], name="n")
    await store.issue(token)
    row = (await store.read([token.record.token_id])).rows[token.record.token_id]
    assert (row.subject, *row.audiences, *row.scopes) == ("team/a", "orders", "*", "orders.read", "orders.*")
    assert ([*row.grants], row.name, row.digest) == ([grant], "n", token.record.digest)
    assert (row.expires_at, row.issued_by, row.revoked_at) == (token.record.expires_at, None, None)


async def test_unknown_ids_are_absent_and_the_position_comes_all_the_same(store: PostgresStore) -> None:
    snapshot = await store.read([uuid4()])
    assert snapshot.rows == {}
    assert snapshot.position.number == 0


async def test_token_without_scopes_has_none(store: PostgresStore) -> None:
    token_id = await stored(store, scopes=())
    assert list((await store.read([token_id])).rows[token_id].scopes) == []


async def test_concurrent_reads_share_one_query(counted: Counted) -> None:
    ids = [await stored(counted.store) for _ in range(3)]
    counted.statements.clear()
    snapshots = await asyncio.gather(*(counted.store.read([ids[at % 3], uuid4()]) for at in range(100)))
    assert counted.statements == ["read"]
    assert all(ids[at % 3] in snapshot.rows for at, snapshot in enumerate(snapshots))


async def test_lone_read_costs_one_statement(counted: Counted) -> None:
    await counted.store.read([uuid4()])
    assert counted.statements == ["read"]


async def test_read_that_arrives_later_sees_what_was_committed_before_it(
    counted: Counted, plain: psycopg.Connection
) -> None:
    """A query already sent has its snapshot: joining it would answer with the past."""
    store = counted.store
    token = new_token()
    await store.issue(token)
    token_id = token.record.token_id
    counted.statements.clear()
    # Reading is stopped by a lock, after its snapshot was taken or before: what matters is that it was sent.
    with plain.transaction():
        plain.execute("lock table tokens in access exclusive mode")
        first = asyncio.ensure_future(store.read([token_id]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        plain.execute("update tokens set revoked_at = now() where id = %s", [token_id])
        assert counted.statements == ["read"]
        second = asyncio.ensure_future(store.read([token_id]))
        await asyncio.sleep(0)
    late = await second
    await first
    assert late.rows[token_id].revoked_at is not None
    assert counted.statements == ["read", "read"]


async def test_read_carries_the_position_of_its_own_snapshot(store: PostgresStore) -> None:
    """Never a position whose revocation the rows do not show yet."""
    ids = [await stored(store) for _ in range(20)]
    before = (await store.read(ids)).position

    async def end_all() -> None:
        for token_id in ids:
            await store.revoke(revocation(token_id=token_id))

    ending = asyncio.ensure_future(end_all())
    seen: list[tuple[int, int]] = []
    while not seen or seen[-1][0] < len(ids):
        snapshot = await store.read(ids)
        revoked = sum(row.revoked_at is not None for row in snapshot.rows.values())
        seen.append((snapshot.position.number - before.number, revoked))
    await ending
    assert all(moved == revoked for moved, revoked in seen)


async def test_reads_of_one_epoch_agree_on_it(store: PostgresStore) -> None:
    first: Position = await position(store)
    await store.revoke(revocation(token_id=uuid4()))
    later: Position = await position(store)
    assert (later.epoch, later.number) == (first.epoch, first.number + 1)


async def test_read_gives_up_when_the_database_does_not_answer(ready_dsn: str, plain: psycopg.Connection) -> None:
    database = await Database.open(ready_dsn, pool_size_max=2)
    store = PostgresStore(database, lookup_timeout_seconds=0.1)
    with plain.transaction():
        plain.execute("lock table tokens in access exclusive mode")
        with pytest.raises(StoreUnavailableError):
            await store.read([uuid4()])
    assert await live(store, uuid4()) == set()
    await store.close()
    await database.close()


async def test_read_goes_on_when_others_hold_every_connection_of_the_pool(ready_dsn: str) -> None:
    """Listings and writes that wait must not stop a check."""
    database = await Database.open(ready_dsn, pool_size_max=1)
    store = PostgresStore(database)
    async with database.connection():
        assert await asyncio.wait_for(live(store, uuid4()), timeout=10) == set()
    await store.close()
    await database.close()


async def test_caller_that_gives_up_does_not_disturb_the_rest(store: PostgresStore, plain: psycopg.Connection) -> None:
    token_id = await stored(store)
    with plain.transaction():
        plain.execute("lock table tokens in access exclusive mode")
        leaving = asyncio.ensure_future(store.read([token_id]))
        staying = asyncio.ensure_future(store.read([token_id]))
        await _sent(plain)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert token_id in (await staying).rows


async def _sent(plain: psycopg.Connection) -> None:
    """Waits until a statement waits for `plain`, whose own transaction sees pg_stat_activity as it was."""
    with psycopg.connect(plain.info.dsn, password=plain.info.password, autocommit=True) as other:
        await waiting_for_locks(other)


async def test_closed_store_refuses_instead_of_waiting(store: PostgresStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.read([uuid4()])
    unstored: NewToken = new_token()
    with pytest.raises(StoreUnavailableError):
        await store.issue(unstored)
    with pytest.raises(StoreUnavailableError):
        await store.revoke(revocation(token_id=uuid4()))
