"""Replicas on one database: rows that are leases, told to whoever waits, and an epoch that ends with the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import conninfo

from tests.store.support import WAIT_SECONDS_MAX, until, waiting_for_locks
from tests.store.test_connection_loss import Silence, through
from watchword_server.store.contract import StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica, ReplicaRow, WatcherRow


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[PostgresFleet]:
    made = await listening(database)
    yield made
    await made.close()


async def listening(database: Database, *, ping_seconds: float = 5) -> PostgresFleet:
    """One that hears of news."""
    made = PostgresFleet(database, ping_seconds=ping_seconds)
    heard = asyncio.ensure_future(made.wait_for_news(WAIT_SECONDS_MAX))
    made.open()
    await heard
    return made


async def joined(fleet: PostgresFleet, *, lease_seconds: float = 60) -> tuple[UUID, UUID]:
    """A replica's key, and its epoch."""
    key, epoch = uuid4(), await fleet.epoch()
    assert await fleet.join(NewReplica(key, epoch, "one", lease_seconds))
    return key, epoch


async def only_replica(fleet: PostgresFleet) -> ReplicaRow:
    [row] = (await fleet.roll()).replicas
    return row


async def test_replica_joins_renews_tells_and_leaves(fleet: PostgresFleet) -> None:
    key, epoch = await joined(fleet, lease_seconds=7)
    row = await only_replica(fleet)
    assert (row.key, row.epoch, row.name, row.applied, row.renewals, row.lease_seconds) == (
        key,
        epoch,
        "one",
        None,
        0,
        7,
    )
    assert await fleet.renew(key, epoch)
    assert await fleet.publish(key, epoch, 0)
    await fleet.drain(key)
    row = await only_replica(fleet)
    assert (row.applied, row.renewals, row.draining) == (0, 1, True)
    assert 0 <= row.renewed_ago_seconds < WAIT_SECONDS_MAX
    await fleet.leave(key)
    assert not (await fleet.roll()).replicas
    assert not await fleet.renew(key, epoch)
    assert not await fleet.publish(key, epoch, 1)
    assert not (await fleet.roll()).replicas


async def test_longest_lease_is_stored_with_the_first_row_that_may_grant_it(fleet: PostgresFleet) -> None:
    assert (await fleet.roll()).longest_lease_seconds == 0
    await joined(fleet, lease_seconds=30)
    await joined(fleet, lease_seconds=20)
    assert (await fleet.roll()).longest_lease_seconds == 30
    assert (await fleet.feed(None, None)).longest_lease_seconds == 30


async def test_replica_of_another_epoch_does_not_join(fleet: PostgresFleet) -> None:
    assert not await fleet.join(NewReplica(uuid4(), uuid4(), "old", 60))
    assert (await fleet.roll()).longest_lease_seconds == 0
    assert not (await fleet.roll()).replicas


async def test_what_was_told_as_applied_is_never_taken_back(fleet: PostgresFleet) -> None:
    key, epoch = await joined(fleet)
    assert await fleet.publish(key, epoch, 5)
    assert await fleet.publish(key, epoch, 4)
    assert (await only_replica(fleet)).applied == 5


async def test_replica_that_renewed_is_not_fenced(fleet: PostgresFleet) -> None:
    key, epoch = await joined(fleet)
    assert await fleet.renew(key, epoch)
    assert not await fleet.fence(key, 0)
    assert await fleet.fence(key, 1)
    assert not await fleet.fence(key, 1)
    assert not await fleet.renew(key, epoch)


async def test_fenced_replica_comes_back_under_another_key_only(fleet: PostgresFleet) -> None:
    key, epoch = await joined(fleet)
    assert await fleet.publish(key, epoch, 3)
    assert await fleet.fence(key, 0)
    assert not await fleet.publish(key, epoch, 4)
    again, _ = await joined(fleet)
    row = await only_replica(fleet)
    assert (row.key, row.applied, row.renewals) == (again, None, 0)
    assert not await fleet.fence(key, 0)
    assert await fleet.renew(again, epoch)


@pytest.mark.parametrize("first", ["renew", "fence"])
async def test_only_one_of_a_renewal_and_a_fence_at_one_moment_wins(
    fleet: PostgresFleet, plain: psycopg.Connection, ready_dsn: str, first: str
) -> None:
    key, epoch = await joined(fleet)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("select from replicas for update")
        started = []
        for count, name in enumerate([first, "fence" if first == "renew" else "renew"], 1):
            work = fleet.renew(key, epoch) if name == "renew" else fleet.fence(key, 0)
            started.append(asyncio.ensure_future(work))
            await waiting_for_locks(plain, count)
        holder.commit()
    won = await asyncio.gather(*started)
    assert sorted(won) == [False, True]
    assert len((await fleet.roll()).replicas) == (1 if won[0] == (first == "renew") else 0)


async def test_many_races_of_renewals_and_fences_have_one_winner_each(fleet: PostgresFleet) -> None:
    for _ in range(50):
        key, epoch = await joined(fleet)
        renewed, fenced = await asyncio.gather(fleet.renew(key, epoch), fleet.fence(key, 0))
        assert renewed != fenced
        await fleet.leave(key)


async def test_first_look_at_a_database_begins_no_epoch(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    before = plain.execute("select epoch, system_identifier, timeline from feed").fetchone()
    assert before is not None
    assert before[1:] == (None, None)
    assert await fleet.epoch() == before[0]
    assert plain.execute("select epoch_settled, timeline from feed").fetchone() == (True, 1)


@pytest.mark.parametrize("column", ["system_identifier", "timeline"])
async def test_database_that_is_another_begins_an_epoch_when_a_replica_renews(
    fleet: PostgresFleet, plain: psycopg.Connection, column: str
) -> None:
    key, epoch = await joined(fleet)
    began_at = plain.execute("select epoch_began_at from feed").fetchone()
    plain.execute(f"update feed set {column} = {column} - 1".encode())
    assert not await fleet.renew(key, epoch)
    now = await fleet.epoch()
    roll = await fleet.roll()
    assert now != epoch
    assert (roll.epoch, roll.settled, roll.longest_lease_seconds) == (now, False, 60)
    assert (await only_replica(fleet)).renewals == 0
    assert not await fleet.publish(key, epoch, 1)
    assert plain.execute("select epoch_began_at from feed").fetchone() != began_at
    assert not await fleet.join(NewReplica(uuid4(), epoch, "late", 60))


@pytest.mark.parametrize("column", ["system_identifier", "timeline"])
async def test_nothing_is_settled_on_a_database_that_is_another(
    fleet: PostgresFleet, plain: psycopg.Connection, column: str
) -> None:
    """Between a promotion and the first renewal after it: rows of servers that joined may have been lost."""
    _, epoch = await joined(fleet)
    assert (await fleet.roll()).settled
    plain.execute(f"update feed set {column} = {column} - 1".encode())
    roll = await fleet.roll()
    assert (roll.epoch, roll.settled) == (epoch, False)


async def test_first_renewal_after_an_upgrade_fills_in_where_the_database_is(
    fleet: PostgresFleet, plain: psycopg.Connection
) -> None:
    key, epoch = await joined(fleet)
    plain.execute("update feed set system_identifier = null, timeline = null")
    assert await fleet.renew(key, epoch)
    assert (await only_replica(fleet)).renewals == 1


async def test_whoever_sees_it_first_begins_the_epoch_and_everybody_else_takes_that_one(
    fleet: PostgresFleet, plain: psycopg.Connection
) -> None:
    epoch = await fleet.epoch()
    begun = await asyncio.gather(*(fleet.begin_epoch(epoch) for _ in range(10)))
    assert len(set(begun)) == 1
    assert begun[0] != epoch
    plain.execute("update feed set timeline = 77")
    seen = await asyncio.gather(*(fleet.epoch() for _ in range(10)))
    assert len(set(seen)) == 1
    assert seen[0] != begun[0]


async def test_only_the_epoch_that_was_observed_is_settled(fleet: PostgresFleet) -> None:
    old = await fleet.epoch()
    new = await fleet.begin_epoch(old)
    await fleet.settle(old)
    assert not (await fleet.roll()).settled
    await fleet.settle(new)
    assert (await fleet.roll()).settled
    assert (await fleet.feed(None, None)).settled


async def test_settling_what_is_settled_is_no_news(fleet: PostgresFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits looks again at news: to settle in vain would be looked at without end."""
    told = []

    async def announce() -> None:
        told.append("news")

    monkeypatch.setattr(fleet, "_announce", announce)
    epoch = await fleet.begin_epoch(await fleet.epoch())
    for _ in range(3):
        await fleet.settle(epoch)
    assert told == ["news"]


async def test_cancelled_caller_does_not_cancel_the_write(
    fleet: PostgresFleet, plain: psycopg.Connection, ready_dsn: str
) -> None:
    key, epoch = await joined(fleet)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("select from replicas for update")
        renewing = asyncio.ensure_future(fleet.renew(key, epoch))
        await waiting_for_locks(plain)
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing
        holder.commit()

    async def renewed() -> bool:
        return (await only_replica(fleet)).renewals == 1

    assert await until(renewed)


async def test_replica_outlives_its_connections(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    key, epoch = await joined(fleet)
    plain.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )

    async def renewed() -> bool:
        try:
            return await fleet.renew(key, epoch)
        except StoreUnavailableError:
            return False

    assert await until(renewed)


async def test_writes_that_hang_are_bounded(fleet: PostgresFleet, plain: psycopg.Connection, ready_dsn: str) -> None:
    key, epoch = await joined(fleet)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("select from replicas for update")
        publishing = [asyncio.ensure_future(fleet.publish(key, epoch, 1)) for _ in range(64)]
        await waiting_for_locks(plain)
        with pytest.raises(StoreUnavailableError):
            await fleet.renew(key, epoch)
        # Whoever only reads is not held up.
        assert (await only_replica(fleet)).applied is None
        holder.commit()
    assert all(await asyncio.gather(*publishing))


async def test_writes_to_a_server_that_fell_silent_do_not_hang(ready_dsn: str, tmp_path: Path) -> None:
    """A frozen machine says nothing, not even that it is gone. Whoever writes hears so once the listener knows."""
    given = conninfo.conninfo_to_dict(ready_dsn)
    silence = Silence(str(given.get("host", "localhost")), int(given.get("port") or 5432))
    async with through(silence, ready_dsn, tmp_path) as dsn:
        database = await Database.open(dsn, pool_size_max=2, connect_timeout_seconds=1)
        fleet = await listening(database, ping_seconds=0.5)
        key, epoch = await joined(fleet)
        silence.begin()
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await fleet.renew(key, epoch)
        silence.end()

        async def renewed() -> bool:
            try:
                return await fleet.renew(key, epoch)
            except StoreUnavailableError:
                return False

        assert await until(renewed)
        await fleet.close()
        await database.close()


def watcher(replica: UUID, number: int, *, lag: int = 0) -> WatcherRow:
    return WatcherRow(
        replica, number.to_bytes(16, "big"), "orders", f"pod-{number}", "py", "10.0.0.1", "orders", lag, 5.5, True
    )


async def test_report_replaces_what_was_reported(fleet: PostgresFleet) -> None:
    key, _ = await joined(fleet)
    other, _ = await joined(fleet)
    await fleet.report(key, [watcher(key, 1), watcher(key, 2)])
    await fleet.report(other, [watcher(other, 1)])
    await fleet.report(key, [watcher(key, 2, lag=3), watcher(key, 4)])
    rows = await fleet.watchers(limit=10, after=None)
    assert {(row.replica, row.instance, row.lag) for row in rows} == {
        (key, "pod-2", 3),
        (key, "pod-4", 0),
        (other, "pod-1", 0),
    }
    assert {row.key: row.watchers_count for row in (await fleet.roll()).replicas} == {key: 2, other: 1}
    await fleet.report(key, [])
    assert [row.replica for row in await fleet.watchers(limit=10, after=None)] == [other]


async def test_watchers_come_in_pages_and_only_of_replicas_that_are_there(fleet: PostgresFleet) -> None:
    key, _ = await joined(fleet)
    gone, _ = await joined(fleet)
    await fleet.report(key, [watcher(key, number) for number in range(5)])
    await fleet.report(gone, [watcher(gone, 9)])
    await fleet.leave(gone)
    listed: list[WatcherRow] = []
    while page := await fleet.watchers(
        limit=2, after=(listed[-1].replica, listed[-1].verifier_key) if listed else None
    ):
        assert len(page) <= 2
        listed += page
    assert [row.instance for row in listed] == [f"pod-{number}" for number in range(5)]


async def news_after(fleet: PostgresFleet, work: Callable[[], object], *, waiters: int = 1) -> None:
    """Waits for the news that `work` makes."""
    await woken_after([fleet.wait_for_news(3600) for _ in range(waiters)], work)


async def woken_after(waits: Sequence[Coroutine[None, None, None]], work: Callable[[], object]) -> None:
    """Waits for all of them, which `work` wakes."""
    waiting = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.sleep(0)
    work()
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await asyncio.gather(*waiting)


async def test_news_wakes_everybody_who_waits(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    await news_after(fleet, lambda: plain.execute("notify watchword_news"), waiters=5)


async def test_waiting_for_news_ends_without_any(fleet: PostgresFleet) -> None:
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        await fleet.wait_for_news(0.01)


async def test_applied_of_one_process_wakes_another(fleet: PostgresFleet, database: Database) -> None:
    key, epoch = await joined(fleet)
    other = await listening(database)
    publishing: list[asyncio.Future[bool]] = []
    # Whoever waits for positions goes on sleeping: every server tells what it applied, of every position.
    asleep = asyncio.ensure_future(other.wait_for_news(3600))
    await woken_after(
        [other.wait_for_applied(3600)],
        lambda: publishing.append(asyncio.ensure_future(fleet.publish(key, epoch, 0))),
    )
    assert await publishing[0]
    assert not asleep.done()
    asleep.cancel()
    await other.close()


async def test_listener_that_was_cut_off_comes_back_and_counts_that_as_news(
    fleet: PostgresFleet, plain: psycopg.Connection
) -> None:
    def cut() -> None:
        row = plain.execute(
            "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() "
            "and query ~* '^(listen|select pg_is_in_recovery)'"
        ).fetchone()
        assert row == (1,)

    for _ in range(3):
        await news_after(fleet, cut)
        await news_after(fleet, lambda: plain.execute("notify watchword_news"))
