"""Connections die between calls and under them: reads recover by themselves, writes are whole or not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import psycopg
import pytest
from psycopg import conninfo

from tests.store.support import (
    OPERATOR,
    WAIT_SECONDS_MAX,
    live,
    new_token,
    position,
    revocation,
    stored,
    until,
    waiting_for_locks,
)
from watchword_server.store.contract import Issued, ScopeEntry, StoreError, StoreUnavailableError
from watchword_server.store.database import Connection, Database
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.revocations import Revocations

PASSWORD = "canary-of-a-password"


def end_connections(plain: psycopg.Connection) -> int:
    """Ends every other connection to this database, and waits until the server has none of them."""
    ended = plain.execute(
        "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone()
    assert ended is not None
    return int(ended[0])


def end_waiting(plain: psycopg.Connection) -> None:
    """Ends the connections to this database that wait for a lock."""
    plain.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and wait_event_type = 'Lock'"
    )


async def busy(store: PostgresStore) -> list[object]:
    """Opens as many connections as the store ever does."""
    lone = []
    for _ in range(3):
        # Not in one turn of the loop, or they would share a query and its connection.
        lone.append(asyncio.ensure_future(position(store)))
        for _ in range(3):
            await asyncio.sleep(0)
    return await asyncio.gather(
        *lone,
        *(stored(store) for _ in range(20)),
        *(store.revoke(revocation(subject=f"nobody{n}")) for n in range(10)),
        *(position(store) for _ in range(20)),
        return_exceptions=True,
    )


async def test_read_recovers_when_every_connection_died_between_calls(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    for _ in range(5):
        await busy(store)
        assert end_connections(plain) > 0
        assert await live(store, token_id) == {token_id}


async def test_read_under_way_recovers_when_its_connection_dies(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("lock table tokens in access exclusive mode")
        reading = asyncio.ensure_future(live(store, token_id))
        await waiting_for_locks(plain)
        end_waiting(plain)
        await waiting_for_locks(plain)
        blocker.commit()
    assert await reading == {token_id}


async def test_write_after_every_connection_died_is_whole_or_unavailable_and_then_works(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    for _ in range(5):
        await busy(store)
        end_connections(plain)
        token = new_token("after", request_id="r")
        try:
            done = isinstance(await store.issue(token), Issued)
        except StoreUnavailableError:
            done = False
        row = plain.execute(
            "select (select count(*) from tokens where id = %(id)s), "
            "(select count(*) from audit_events where token_id = %(id)s), "
            "(select count(*) from issue_requests where token_id = %(id)s)",
            {"id": token.record.token_id},
        ).fetchone()
        assert row == ((1, 1, 1) if done else (0, 0, 0))
        plain.execute("delete from issue_requests")

        async def works() -> bool:
            try:
                return isinstance(await store.issue(new_token()), Issued)
            except StoreUnavailableError:
                return False

        assert await until(works)


async def test_revocation_cut_off_before_its_commit_did_nothing(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=token_id)))
        await waiting_for_locks(plain)
        end_waiting(plain)
        with pytest.raises(StoreUnavailableError):
            await ending
        blocker.rollback()
    assert await live(store, token_id) == {token_id}
    assert (await position(store)).number == 0
    assert (await store.revoke(revocation(token_id=token_id))).count == 1


async def test_issue_cut_off_before_its_commit_did_nothing(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token = new_token(request_id="once")
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("lock table tokens in exclusive mode")
        issuing = asyncio.ensure_future(store.issue(token))
        await waiting_for_locks(plain)
        end_waiting(plain)
        with pytest.raises(StoreUnavailableError):
            await issuing
        blocker.rollback()
    assert isinstance(await store.issue(token), Issued)


async def test_connection_that_became_read_only_is_thrown_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fail-over the old primary still answers, and would refuse every write for ever."""
    connect, made = database.connect, list[Connection]()

    async def connect_and_remember() -> Connection:
        made.append(await connect())
        return made[-1]

    monkeypatch.setattr(database, "connect", connect_and_remember)
    revocations = Revocations(database, queue_max=10)
    for count in range(1, 4):
        assert (await revocations.revoke(revocation(token_id=uuid4()))).position.number == count
        assert len(made) == count
        await made[-1].execute("set default_transaction_read_only = on")
        with pytest.raises(StoreUnavailableError) as caught:
            await revocations.revoke(revocation(token_id=uuid4()))
        assert isinstance(caught.value.__cause__, asyncpg.ReadOnlySQLTransactionError)
        assert made[-1].is_closed()
    await revocations.close()


async def test_pooled_connection_that_became_read_only_is_thrown_away(ready_dsn: str) -> None:
    # One connection: what is made read-only here is what the next one gets.
    database = await Database.open(ready_dsn, pool_size_max=1)
    store = PostgresStore(database)
    for _ in range(8):
        async with database.connection() as connection:
            await connection.execute("set default_transaction_read_only = on")
            pid = connection.get_server_pid()
        with pytest.raises(StoreUnavailableError) as caught:
            await store.register_scopes([ScopeEntry("orders.read", "", "operator")], OPERATOR)
        assert isinstance(caught.value.__cause__, asyncpg.ReadOnlySQLTransactionError)
        async with database.connection() as connection:
            assert connection.get_server_pid() != pid
    await store.close()
    await database.close()


async def test_ping_tells_whether_the_database_answers(ready_dsn: str, plain: psycopg.Connection) -> None:
    database = await Database.open(ready_dsn, pool_size_max=2)
    await database.ping()
    assert (database.size, database.idle) == (1, 1)
    end_connections(plain)

    async def answers() -> bool:
        try:
            await database.ping()
        except StoreUnavailableError:
            return False
        return True

    assert await until(answers)
    await database.close()
    with pytest.raises(StoreUnavailableError):
        await database.ping()


class Silence:
    """Stands between a store and its database, and at some moment says nothing more: a machine that hangs."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._forgotten = 0
        self._made = 0

    def begin(self) -> None:
        """From now on nothing passes, and new connections hear nothing."""
        self._speaking.clear()

    def end(self) -> None:
        """What was held back arrives."""
        self._speaking.set()

    def forget(self) -> None:
        """The connections that there are become half open: all that is sent on them is taken and passed to nobody, and
        neither side hears that the other left. New ones pass."""
        self._forgotten = self._made

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        await self._speaking.wait()
        host, port = self._target
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, port)
        try:
            self._made += 1
            number = self._made
            await asyncio.gather(self._copy(number, reader, there[1]), self._copy(number, there[0], writer))
        finally:
            writer.close()
            there[1].close()

    async def _copy(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._speaking.wait()
            if number > self._forgotten:
                writer.write(data)
        if number <= self._forgotten:
            await asyncio.Event().wait()
        writer.close()


@asynccontextmanager
async def through(silence: Silence, dsn: str, folder: Path) -> AsyncIterator[str]:
    """The same database, with `silence` on the way."""
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.ensure_future(silence.pass_on(reader, writer)))

    given = conninfo.conninfo_to_dict(dsn)
    server = await asyncio.start_unix_server(accept, str(folder / ".s.PGSQL.5432"))
    password = f":{given['password']}" if given.get("password") else ""
    yield f"postgresql://{given['user']}{password}@/{given['dbname']}?host={quote(str(folder), safe='')}"
    server.close()
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_ping_of_a_silent_database_is_given_up_at_once(ready_dsn: str, tmp_path: Path) -> None:
    """Whoever asks for the server's health hears no as soon as the probe's patience ends, and yes once it speaks."""
    given = conninfo.conninfo_to_dict(ready_dsn)
    silence = Silence(str(given.get("host", "localhost")), int(given.get("port") or 5432))
    async with through(silence, ready_dsn, tmp_path) as dsn:
        database = await Database.open(dsn, pool_size_max=2)
        await database.ping()
        silence.begin()
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await database.ping()
        silence.end()
        await database.ping()
        await database.close()


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://user:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://user:{PASSWORD}@host.invalid/db",
        f"postgresql://user:{PASSWORD}@/db?host=/nonexistent",
        f"postgresql://user:{PASSWORD}@127.0.0.1:1,127.0.0.1:2/db",
        # An unescaped slash: what is left of it looks like a port.
        f"postgresql://user:{PASSWORD}/rest@127.0.0.1:1/db",
        f"postgresql://user:{PASSWORD}@127.0.0.1:1/db?sslmode=nonsense",
    ],
)
async def test_error_while_connecting_shows_nothing_of_the_connection_string(dsn: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        await Database.open(dsn, pool_size_max=2, connect_timeout_seconds=2)
    assert PASSWORD not in str(caught.value) + repr(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_refused_values_are_not_in_the_errors_text(store: PostgresStore) -> None:
    with pytest.raises(StoreError) as caught:
        await store.issue(new_token(name=f"{PASSWORD}\x00"))
    assert PASSWORD not in str(caught.value) + repr(caught.value)
