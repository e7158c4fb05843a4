"""A server among others, on a real database: it joins, hears, tells, is fenced, and comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from watchword.lease import SystemClock
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.member import Member
from watchword_server.replica.observer import Observer
from watchword_server.replica.propagation import Propagation
from watchword_server.store.contract import Actor, Position, Revocation, Selector, StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import FeedPage
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.postgres import PostgresStore

LEASE_SECONDS = 2.0
WAIT_SECONDS_MAX = 30


class BreakableFleet:
    """A fleet whose methods fail while their names are in `broken`."""

    def __init__(self, fleet: PostgresFleet) -> None:
        self._fleet = fleet
        self.broken: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._fleet, name)
        if not callable(method):
            return method

        async def call(*args: object, **kwargs: object) -> object:
            self.asked.append(name)
            if name in self.broken:
                raise StoreUnavailableError("broken")
            return await method(*args, **kwargs)

        return call


class Server:
    """One replica, as a server has it."""

    def __init__(self, fleet: PostgresFleet, name: str) -> None:
        clock = SystemClock()
        self.fleet = BreakableFleet(fleet)
        self.ledger = Ledger(clock, lease_seconds_max=LEASE_SECONDS)
        self.fenced: list[str] = []
        self.propagation = Propagation(
            self.fleet, Observer(clock), every_seconds=LEASE_SECONDS / 20, fenced=self.fenced.append
        )
        self.member = Member(self.fleet, self.ledger, clock, self.propagation, name=name, lease_seconds=LEASE_SECONDS)
        self.propagation.awaited = self.member.look
        self.heard: list[FeedPage] = []
        self.member.heard = self.heard.append


class Servers:
    """Several on one database, and revocations on it."""

    def __init__(self, database: Database, dsn: str) -> None:
        self.dsn = dsn
        self.store = PostgresStore(database)
        self._database = database
        self._stack = AsyncExitStack()
        self._count = 0

    async def start(self) -> Server:
        """One more, joined."""
        fleet = PostgresFleet(self._database)
        fleet.open()
        self._stack.push_async_callback(fleet.close)
        self._count += 1
        server = Server(fleet, f"server {self._count}")
        await self._stack.enter_async_context(server.member.running())
        return server

    async def revoke(self) -> Position:
        """Moves the position, in the name of a token that there is not."""
        return (
            await self.store.revoke(Revocation(Selector(token_id=uuid4()), Actor("test", None, ""), "", False, ()))
        ).position

    def rows(self) -> dict[UUID, tuple[int, int | None]]:
        """The replicas' renewals and applied marks."""
        with psycopg.connect(self.dsn) as database:
            return {row[0]: (row[1], row[2]) for row in database.execute("select key, renewals, applied from replicas")}

    async def close(self) -> None:
        await self._stack.aclose()
        await self.store.close()


@pytest.fixture
async def servers(dsn: str) -> AsyncIterator[Servers]:
    database = await Database.open(dsn, pool_size_max=8)
    await ensure_partitions(database, ttl_max=timedelta(days=40), days=30)
    made = Servers(database, dsn)
    yield made
    await made.close()
    await database.close()


async def until(condition: Callable[[], object], turn: Callable[[], Awaitable[object]]) -> None:
    """Waits for what a server does by itself, between turns of something that takes a moment."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not condition():
            await turn()


async def renewed(server: Server) -> None:
    """One more round of the server's."""
    await server.member._renewing.ended()


async def test_a_server_that_joined_may_judge(servers: Servers) -> None:
    server = await servers.start()
    assert server.ledger.key in servers.rows()
    assert server.ledger.epoch is not None
    assert server.member.may_judge(server.ledger.epoch)
    assert not server.member.may_judge(uuid4())


async def test_it_renews_and_tells_what_it_applied(servers: Servers) -> None:
    server = await servers.start()
    key = server.ledger.key
    assert key is not None
    position = await servers.revoke()
    await until(
        lambda: servers.rows()[key][0] > 2 and servers.rows()[key][1] == position.number, lambda: renewed(server)
    )
    assert server.member.told == position.number


async def test_a_change_is_heard_before_it_counts_as_known(servers: Servers) -> None:
    server = await servers.start()
    known: list[int | None] = []
    server.member.heard = lambda page: known.append(server.ledger.number) if page.changes else None
    position = await servers.revoke()
    await server.member.poll()
    await until(lambda: server.ledger.number == position.number, server.member.poll)
    assert known == [position.number - 1]


async def test_attempts_to_join_leave_no_rows_behind(servers: Servers) -> None:
    server = await servers.start()
    lost = server.ledger.key
    assert lost is not None
    await server.fleet.leave(lost)
    server.fleet.broken = {"feed"}
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while server.fleet.asked.count("join") < 4:
            await server.member._reporting._rounds.ended()
    server.fleet.broken = set()
    await until(lambda: server.ledger.granting, lambda: server.member._reporting._rounds.ended())
    assert list(servers.rows()) == [server.ledger.key]


async def test_a_server_whose_row_is_gone_joins_anew_under_another_key(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="watchword")
    server = await servers.start()
    first = server.ledger.key
    with psycopg.connect(servers.dsn) as database:
        database.execute("delete from replicas")
    await until(lambda: server.ledger.key not in {None, first} and server.ledger.granting, lambda: renewed(server))
    assert list(servers.rows()) == [server.ledger.key]
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "lease is l" in line] == [
        "this server's lease is live",
        "this server's lease is lost: answering UNAVAILABLE until it joined the others again",
        "this server's lease is live",
    ]


async def test_a_server_whose_next_positions_were_pruned_begins_anew_in_the_same_epoch(servers: Servers) -> None:
    server = await servers.start()
    epoch, number = server.ledger.epoch, server.ledger.number
    assert number is not None
    with psycopg.connect(servers.dsn) as database:
        database.execute("update feed set position = position + 3, mark = gen_random_uuid(), pruned_to = position + 3")
        database.execute("insert into positions (number, mark) select position, mark from feed")
    await until(lambda: server.ledger.number == number + 3, server.member.poll)
    assert server.ledger.epoch == epoch
    assert server.ledger.log is not None
    assert server.ledger.log.floor == number + 3


async def test_a_position_with_another_mark_begins_an_epoch(servers: Servers) -> None:
    server = await servers.start()
    epoch = server.ledger.epoch
    with psycopg.connect(servers.dsn) as database:
        database.execute("update positions set mark = gen_random_uuid()")
    await until(lambda: server.ledger.epoch not in {None, epoch} and server.ledger.granting, server.member.poll)


async def test_a_server_that_hears_of_no_revocations_stops_renewing(servers: Servers) -> None:
    server = await servers.start()
    server.fleet.broken = {"feed"}
    epoch = server.ledger.epoch
    assert epoch is not None
    await until(lambda: not server.member.may_judge(epoch), lambda: renewed(server))
    server.fleet.asked.clear()
    await renewed(server)
    assert "renew" not in server.fleet.asked
    server.fleet.broken = set()
    await until(lambda: server.member.may_judge(epoch), lambda: renewed(server))


async def test_a_database_that_is_away_for_less_than_the_lease_is_lived_through(servers: Servers) -> None:
    server = await servers.start()
    key, epoch = server.ledger.key, server.ledger.epoch
    assert epoch is not None
    server.fleet.broken = {"renew", "feed", "roll", "publish", "report"}
    await renewed(server)
    assert server.member.may_judge(epoch)
    server.fleet.broken = set()
    position = await servers.revoke()
    await until(lambda: server.member.told == position.number, lambda: renewed(server))
    assert server.ledger.key == key


async def test_a_revocation_is_complete_once_every_server_told(servers: Servers) -> None:
    one, other = await servers.start(), await servers.start()
    other.fleet.broken = {"publish"}
    position = await servers.revoke()
    waiting = asyncio.ensure_future(one.propagation.wait(position, WAIT_SECONDS_MAX))
    await until(lambda: other.ledger.number == position.number, lambda: renewed(other))
    await renewed(one)
    assert not waiting.done()
    other.fleet.broken = set()
    reached = await waiting
    assert (reached.complete, reached.effective_in_seconds, reached.replicas_count) == (True, 0.0, 2)
    assert not one.fenced


async def test_a_dead_server_is_fenced_and_then_gone(servers: Servers) -> None:
    one, other = await servers.start(), await servers.start()
    dead = other.ledger.key
    other.fleet.broken = {"renew", "publish", "join", "epoch", "fence"}
    position = await servers.revoke()
    pending = await one.propagation.wait(position, 0.1)
    assert not pending.complete
    assert pending.effective_in_seconds > 0
    reached = await one.propagation.wait(position, WAIT_SECONDS_MAX)
    assert reached.complete
    assert one.fenced == ["server 2"]
    assert dead not in servers.rows()
    # It wakes up and finds that it is gone.
    other.fleet.broken = set()
    await until(lambda: other.ledger.key not in {None, dead} and other.ledger.granting, lambda: renewed(other))


async def test_a_server_that_just_began_knows_how_long_others_leases_are(servers: Servers) -> None:
    propagation = Propagation(
        (await servers.start()).fleet, Observer(SystemClock()), every_seconds=2 * WAIT_SECONDS_MAX
    )
    looking = asyncio.ensure_future(propagation.run())
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await propagation._rolls.ended()
    reached = await propagation.wait(await servers.revoke(), 0)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert not reached.complete
    assert reached.effective_in_seconds > LEASE_SECONDS + 5


async def test_all_who_wait_share_the_lists_of_servers(servers: Servers) -> None:
    server = await servers.start()
    position = await servers.revoke()
    server.fleet.asked.clear()
    reached = await asyncio.gather(*(server.propagation.wait(position, WAIT_SECONDS_MAX) for _ in range(200)))
    assert all(one.complete for one in reached)
    assert server.fleet.asked.count("roll") < 20


async def test_a_server_that_goes_signs_off(servers: Servers) -> None:
    fleet_left = await servers.start()
    async with _another(servers) as other:
        assert other.ledger.key in servers.rows()
        await other.member.drain()
    assert list(servers.rows()) == [fleet_left.ledger.key]


@asynccontextmanager
async def _another(servers: Servers) -> AsyncIterator[Server]:
    server = Server(PostgresFleet(servers._database), "another")
    async with server.member.running():
        yield server
    await server.fleet.close()
