"""Connections that a balancer forgot: what waits on them hears of it, and what the server is still at is left alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo

from tests.store.support import (
    OPERATOR,
    WAIT_SECONDS_MAX,
    live,
    new_token,
    revocation,
    stored,
    until,
    waiting_for_locks,
)
from tests.store.test_connection_loss import Silence, through
from tests.store.test_durable import standby_missing, waiting_backend, waits_for_standby
from tests.store.test_fleet import joined, only_replica
from watchword_server.store import database as database_module
from watchword_server.store.contract import ScopeEntry, StoreUnavailableError, TokenQuery
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.unanswered import Unanswered

PING_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Replica:
    """What a server has of its database, and what is on the way there."""

    database: Database
    store: PostgresStore
    fleet: PostgresFleet
    silence: Silence


@pytest.fixture
async def replica(ready_dsn: str, tmp_path: Path) -> AsyncIterator[Replica]:
    """One whose fleet does not listen yet, so that its listener's connection is made when the test wants it."""
    given = conninfo.conninfo_to_dict(ready_dsn)
    silence = Silence(str(given.get("host", "localhost")), int(given.get("port") or 5432))
    async with through(silence, ready_dsn, tmp_path) as dsn:
        database = await Database.open(dsn, pool_size_max=2, connect_timeout_seconds=1)
        made = Replica(database, PostgresStore(database), PostgresFleet(database, ping_seconds=PING_SECONDS), silence)
        yield made
        silence.end()
        await made.store.close()
        await made.fleet.close()
        await database.close()


def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Returns, at each call, when the server has been asked three times more what became of its statements."""
    look, looked = Unanswered.look, asyncio.Semaphore(0)

    async def count(self: Unanswered, other: Any, seconds: float) -> bool:
        try:
            return await look(self, other, seconds)
        finally:
            looked.release()

    monkeypatch.setattr(Unanswered, "look", count)

    async def thrice() -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            for _ in range(3):
                await looked.acquire()

    return thrice


async def unavailable(asked: Awaitable[object]) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        with pytest.raises(StoreUnavailableError):
            await asked


async def again(asked: Callable[[], Awaitable[object]]) -> None:
    """It works, sooner or later."""

    async def works() -> bool:
        try:
            return bool(await asked())
        except StoreUnavailableError:
            return False

    assert await until(works)


async def test_renewal_on_a_connection_that_was_forgotten_is_noticed(replica: Replica) -> None:
    """The listener's own connection works: its ping says nothing of others."""
    key, epoch = await joined(replica.fleet)
    replica.silence.forget()
    replica.fleet.open()
    await unavailable(replica.fleet.renew(key, epoch))
    await again(lambda: replica.fleet.renew(key, epoch))


async def test_every_write_on_a_connection_that_was_forgotten_is_noticed(replica: Replica) -> None:
    store = replica.store
    token_id = await stored(store)

    async def register() -> bool:
        return await store.register_scopes([ScopeEntry("orders.read", "", "operator")], OPERATOR) is not None

    await store.revoke(revocation(token_id=uuid4()))
    await register()
    replica.silence.forget()
    replica.fleet.open()
    await asyncio.gather(
        unavailable(store.revoke(revocation(token_id=token_id))),
        unavailable(store.issue(new_token())),
        unavailable(register()),
    )
    await again(lambda: store.revoke(revocation(token_id=token_id)))
    await again(lambda: store.issue(new_token()))
    await again(register)
    assert await live(store, token_id) == set()


async def test_what_lies_idle_is_not_tried_when_one_connection_was_forgotten(replica: Replica) -> None:
    """Or each would be found out in its turn, seconds after the one before."""
    store = replica.store
    key, epoch = await joined(replica.fleet)
    await asyncio.gather(stored(store), store.revoke(revocation(token_id=uuid4())), store.tokens(TokenQuery()))
    replica.silence.forget()
    replica.fleet.open()
    await unavailable(replica.fleet.renew(key, epoch))
    assert await store.issue(new_token())
    assert await store.revoke(revocation(token_id=uuid4()))
    await store.tokens(TokenQuery())
    assert await replica.fleet.renew(key, epoch)


async def test_list_on_a_connection_that_was_forgotten_is_given_up(replica: Replica) -> None:
    """And leaves its place in the pool to others."""
    store = PostgresStore(replica.database, statement_timeout_seconds=0.5)
    token_id = await stored(store)
    await store.tokens(TokenQuery())
    replica.silence.forget()
    await unavailable(store.tokens(TokenQuery()))

    async def listed() -> bool:
        return [row.token_id for row in (await store.tokens(TokenQuery()))[0]] == [token_id]

    await again(listed)


async def test_a_write_at_work_is_left_alone_until_its_answer_is_lost(
    replica: Replica, plain: psycopg.Connection, ready_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, epoch = await joined(replica.fleet)
    looked = looks(monkeypatch)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("select from replicas for update")
        renewing = asyncio.ensure_future(replica.fleet.renew(key, epoch))
        await waiting_for_locks(plain)
        replica.silence.forget()
        replica.fleet.open()
        await looked()
        await looked()
        assert not renewing.done()
        holder.commit()
    await unavailable(renewing)
    # It was done all the same.
    assert (await only_replica(replica.fleet)).renewals == 1


async def test_a_commit_that_waits_for_its_standby_is_left_alone(
    replica: Replica, plain: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or there would be one more that waits at each attempt, for as long as the standby is away."""
    looked = looks(monkeypatch)
    epoch = await replica.fleet.epoch()
    async with standby_missing(replica.fleet, plain):
        joining = asyncio.ensure_future(replica.fleet.join(NewReplica(uuid4(), epoch, "one", 60)))
        assert await waits_for_standby(joining, plain)
        backend = waiting_backend(plain)
        replica.fleet.open()
        await looked()
        await looked()
        assert not joining.done()
        assert waiting_backend(plain) == backend
    assert await joining


async def test_writes_are_given_up_where_no_way_leads_to_the_server(replica: Replica) -> None:
    key, epoch = await joined(replica.fleet)
    replica.silence.begin()
    renewing = asyncio.ensure_future(replica.fleet.renew(key, epoch))
    replica.fleet.open()
    await unavailable(renewing)
    replica.silence.end()
    await again(lambda: replica.fleet.renew(key, epoch))


async def test_locks_of_a_transaction_that_nobody_goes_on_with_are_released(
    replica: Replica,
    plain: psycopg.Connection,
    ready_dsn: str,
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server hears nothing of a client that hung up behind a balancer which forgot them both."""
    monkeypatch.setattr(database_module, "IDLE_TRANSACTION_SECONDS_MAX", 1)
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("select from feed for update")
        cut_off = asyncio.ensure_future(replica.store.revoke(revocation(token_id=token_id)))
        await waiting_for_locks(plain)
        replica.silence.forget()
        holder.rollback()
    replica.fleet.open()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        assert (await store.revoke(revocation(token_id=token_id))).count == 1
    await unavailable(cut_off)


async def test_closing_does_not_wait_for_a_server_that_hears_nothing(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    """All that lies idle leads nowhere, and a revocation whose caller left is under way."""
    store, fleet = replica.store, replica.fleet
    key, epoch = await joined(fleet)
    for _ in range(5):
        await asyncio.gather(*(fleet.renew(key, epoch) for _ in range(4)), *(fleet.roll() for _ in range(4)))
    await asyncio.gather(store.issue(new_token()), stored(store), store.revoke(revocation(token_id=uuid4())))
    await replica.database.ping()
    replica.silence.forget()
    left = asyncio.ensure_future(store.revoke(revocation(token_id=uuid4())))
    await asyncio.sleep(0)
    left.cancel()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await store.close(patience_seconds=0.1)
        await fleet.close()
        await replica.database.close()
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_numbers_that_a_pooler_made_up_say_nothing() -> None:
    class Pooled:
        ended = False

        def get_server_pid(self) -> int:
            return 1

        async def fetch(self, *_: object, timeout: float) -> list[object]:
            return []

        def terminate(self) -> None:
            self.ended = True

    unanswered, connection = Unanswered(), Pooled()
    with unanswered.waiting(connection):
        assert not await unanswered.look(Pooled(), 0)
        assert not connection.ended
        unanswered.give_up(0)
        assert connection.ended
