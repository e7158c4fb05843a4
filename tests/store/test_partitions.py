"""Partitions are there ahead of need, without gaps or overlaps, however many servers make them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.databases import Databases
from tests.store.support import DAYS, EPOCH, TTL_MAX, new_token, until, waiting_for_locks
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store import migrate
from watchword_server.store.contract import Issued, NewToken, RowRefusedError, StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.partitions import (
    Partition,
    attached_partitions,
    covered_ranges,
    ensure_partitions,
    missing_partitions,
)
from watchword_server.store.postgres import PostgresStore

Range = tuple[datetime, datetime]
MILLISECOND = timedelta(milliseconds=1)


def day(year: int, month: int = 1, of_month: int = 1) -> datetime:
    return datetime(year, month, of_month, tzinfo=UTC)


def missing(covered: list[Range], since: datetime, until: datetime, days: int | None = None) -> list[Range]:
    return [(one.begins_at, one.ends_at) for one in missing_partitions("tokens", covered, since, until, days)]


def test_months_through_one_after_the_last_needed() -> None:
    assert missing([], day(2027, 11, 15), day(2028, 1, 2)) == [
        (day(2027, 11), day(2027, 12)),
        (day(2027, 12), day(2028, 1)),
        (day(2028, 1), day(2028, 2)),
        (day(2028, 2), day(2028, 3)),
    ]


def test_month_begins_at_its_first_instant() -> None:
    assert missing([], day(2028, 2), day(2028, 2)) == [(day(2028, 2), day(2028, 3)), (day(2028, 3), day(2028, 4))]
    assert missing([], day(2028, 3) - MILLISECOND, day(2028, 3) - MILLISECOND)[0] == (day(2028, 2), day(2028, 3))


def test_leap_day_lies_in_february() -> None:
    ((begins, ends), *_) = missing([], day(2028, 2, 29), day(2028, 2, 29))
    assert ends - begins == timedelta(days=29)


def test_days_are_counted_from_1970() -> None:
    ranges = missing([], day(1970, 1, 15), day(1970, 1, 20), 7)
    assert ranges == [(day(1970, 1, 15), day(1970, 1, 22)), (day(1970, 1, 22), day(1970, 1, 29))]


def test_nothing_is_missing_where_all_is_covered() -> None:
    assert missing([(day(2027), day(2029))], day(2027, 6), day(2027, 8)) == []


def test_gap_between_partitions_is_filled() -> None:
    covered = [(day(2027, 1), day(2027, 2)), (day(2027, 3), day(2027, 4))]
    assert missing(covered, day(2027, 1, 5), day(2027, 2, 5)) == [(day(2027, 2), day(2027, 3))]


def test_after_a_change_of_period_new_partitions_begin_where_old_ones_end() -> None:
    weekly = [(day(1970, 1, 1) + timedelta(weeks=n), day(1970, 1, 1) + timedelta(weeks=n + 1)) for n in range(5)]
    monthly = missing(weekly, day(1970, 1, 10), day(1970, 2, 20))
    assert monthly == [(day(1970, 2, 5), day(1970, 3, 1)), (day(1970, 3, 1), day(1970, 4, 1))]
    assert missing([(day(1970, 1), day(1970, 2))], day(1970, 1, 2), day(1970, 2, 2), 7) == [
        (day(1970, 2, 1), day(1970, 2, 5)),
        (day(1970, 2, 5), day(1970, 2, 12)),
    ]


_days = st.integers(min_value=0, max_value=4000).map(lambda days: day(2026) + timedelta(days=days))


@st.composite
def _covered(draw: st.DrawFn) -> list[Range]:
    edges = sorted(draw(st.sets(_days, max_size=12)))
    return [(lower, upper) for lower, upper in pairwise(edges) if draw(st.booleans())]


@given(_covered(), _days, st.integers(0, 800), st.none() | st.integers(1, 366), st.integers(0, 86_399_999))
def test_missing_and_covered_together_cover_everything_once(
    covered: list[Range], since: datetime, life_days: int, days: int | None, within_day_ms: int
) -> None:
    since += timedelta(milliseconds=within_day_ms)
    until = since + timedelta(days=life_days)
    made = missing(covered, since, until, days)
    everything = sorted([*covered, *made])
    assert all(begins < ends for begins, ends in made)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(everything))
    # From `since` on without a gap, through a whole period after the one that holds `until`.
    reached = since
    for begins, ends in everything:
        if begins <= reached < ends:
            reached = ends
    period = timedelta(days=days or 28)
    assert reached >= until + period
    assert missing(everything, since, until, days) == []
    names = [Partition("tokens", *one).name for one in made]
    assert len(set(names)) == len(names)


@given(st.integers(0, 2**47))
def test_bound_is_the_smallest_id_of_its_instant(milliseconds: int) -> None:
    at = EPOCH + timedelta(milliseconds=min(milliseconds, 200_000_000_000_000))
    bound = Partition("tokens", at, at + MILLISECOND).lower_bound
    assert bound.int & ((1 << 80) - 1) == 0
    assert EPOCH + timedelta(milliseconds=bound.int >> 80) == at


async def _bounds(database: Database) -> dict[str, list[Range]]:
    async with database.connection() as connection:
        return await covered_ranges(connection)


async def test_made_once_and_then_nothing_is_missing(database: Database) -> None:
    before = await _bounds(database)
    assert await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS) == []
    made = await ensure_partitions(database, ttl_max=TTL_MAX * 3, days=DAYS)
    assert made
    after = await _bounds(database)
    assert len(after["tokens"]) + len(after["token_usage"]) == 2 * len(before["tokens"]) + len(made)
    assert after["token_usage"] == after["tokens"]
    now = datetime.now(UTC)
    assert after["tokens"][0][0] <= now
    assert after["tokens"][-1][1] >= now + TTL_MAX * 3 + timedelta(days=DAYS)
    assert after["audit_events"][0][0] <= now - timedelta(days=1)
    assert after["audit_events"][-1][1] >= now + timedelta(days=DAYS)


async def test_made_by_many_servers_at_once(postgres: Databases) -> None:
    with postgres.fresh() as dsn:
        databases = [await Database.open(dsn, pool_size_max=2) for _ in range(4)]
        made = await asyncio.gather(*(ensure_partitions(one, ttl_max=TTL_MAX, days=DAYS) for one in databases))
        ranges = await _bounds(databases[0])
        names = [name for names in made for name in names]
        assert len(names) == len(set(names)) == sum(map(len, ranges.values()))
        for covered in ranges.values():
            assert all(earlier[1] == later[0] for earlier, later in pairwise(covered))
        for one in databases:
            await one.close()


async def test_a_table_whose_type_another_server_is_just_making_is_left_to_it(dsn: str) -> None:
    """Of two that make one table at once, one may stumble over the row type that comes with it, not over the table."""
    database = await Database.open(dsn, pool_size_max=1)
    now = datetime.now(UTC)
    name = next(missing_partitions("tokens", [], now, now, DAYS)).name
    async with database.connection() as connection:
        await connection.execute(f"create type {name} as enum ()")
    made = await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS)
    assert made
    assert name not in made
    await database.close()


async def test_period_can_change_while_running(database: Database) -> None:
    await ensure_partitions(database, ttl_max=TTL_MAX * 4, days=None)
    await ensure_partitions(database, ttl_max=TTL_MAX * 5, days=7)
    covered = (await _bounds(database))["tokens"]
    assert all(earlier[1] == later[0] for earlier, later in pairwise(covered))


async def test_waiting_for_a_lock_is_given_up_and_tried_again(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """DDL that queues makes every reader queue behind it; so it leaves the queue within a second."""
    waiting = "select xact_start from pg_stat_activity where wait_event_type = 'Lock'"
    with psycopg.connect(ready_dsn) as blocker:
        # Readers and writers pass it, and so does whoever only looks at the partitions; attaching one does not.
        blocker.execute("lock table tokens in share update exclusive mode")
        making = asyncio.ensure_future(ensure_partitions(database, ttl_max=TTL_MAX * 2, days=DAYS))
        await waiting_for_locks(plain)
        first = plain.execute(waiting).fetchone()

        async def begun_anew() -> bool:
            now = plain.execute(waiting).fetchone()
            return now is not None and now != first

        assert await until(begun_anew)
        assert not making.done()
        blocker.rollback()
    assert await making


@pytest.mark.parametrize(
    "mode", ["lock table tokens in access exclusive mode", "lock table tokens in share update exclusive mode"]
)
async def test_blocker_that_stays_is_unavailable_and_not_for_ever(
    database: Database, ready_dsn: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("watchword_server.store.partitions._LOCK_TIMEOUT", "20ms")
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute(mode)
        with pytest.raises(StoreUnavailableError):
            await ensure_partitions(database, ttl_max=TTL_MAX * 2, days=DAYS)


async def test_tokens_land_on_both_sides_of_every_boundary(database: Database, store: PostgresStore) -> None:
    covered = (await _bounds(database))["tokens"]
    instants = [
        boundary + offset for _, boundary in covered[:-1] for offset in (-MILLISECOND, timedelta(), MILLISECOND)
    ]
    instants += [covered[-1][1] - MILLISECOND]
    outcomes = await asyncio.gather(*(store.issue(new_token(expires_at=at)) for at in instants))
    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    with pytest.raises(RowRefusedError):
        await store.issue(new_token(expires_at=covered[-1][1]))


async def test_smallest_and_largest_id_of_a_partition_land_in_it(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    begins, ends = (await _bounds(database))["tokens"][1]
    partition = Partition("tokens", begins, ends)
    template: NewToken = new_token()
    for number in (partition.lower_bound.int, partition.upper_bound.int - 1):
        record: TokenRecord = template.record._replace(token_id=type(template.record.token_id)(int=number))
        assert isinstance(await store.issue(NewToken(record, template.actor)), Issued)
    row = plain.execute("select array_agg(distinct tableoid::regclass::text), count(*) from tokens").fetchone()
    assert row == ([partition.name], 2)


ROWS = (
    "insert into tokens (id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes)"
    " select id, now(), now(), 1, '', '', '{}', '{}' from unnest(%s::uuid[]) as id"
)
USE = (
    "insert into token_usage (token_id, service, last_used_at, use_count, address, scopes, networks)"
    " select id, 'orders', now(), 1, '', '{}', '{}' from tokens"
)


async def test_upgraded_database_has_room_for_the_use_of_every_token(
    postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that was made before use was recorded, and has partitions of its time: past, odd and to come."""
    for script in sorted((Path(migrate.__file__).parent / "migrations").glob("000[12].*")):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    now = datetime.now(UTC)
    days = [now + timedelta(days=offset) for offset in (-400, -5, 0, 2, 30)]
    with postgres.fresh(migrated=False) as dsn:
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "_folder", lambda: tmp_path)
            assert len(migrate.upgrade(dsn)) == 2
        with psycopg.connect(dsn, autocommit=True) as plain:
            for begins, ends in pairwise(days):
                one = Partition("tokens", begins, ends)
                lower, upper = one.lower_bound, one.upper_bound
                plain.execute("select ensure_partition('tokens', %s, %s, %s)", [one.name, lower, upper])
                plain.execute(ROWS.encode(), [[lower, UUID(int=upper.int - 1)]])
            assert len(migrate.upgrade(dsn)) == 2
            database = await Database.open(dsn, pool_size_max=1)
            made = await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS)
            assert await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS) == []
            covered = await _bounds(database)
            await database.close()
            assert made
            assert covered["token_usage"] == covered["tokens"]
            assert plain.execute(USE.encode()).rowcount == 8


@pytest.mark.parametrize(
    "bounds", ["default", "for values from ('ff000000-0000-0000-0000-000000000000') to (maxvalue)"]
)
async def test_partitions_made_by_hand_are_seen_and_disturb_nobody(
    database: Database, plain: psycopg.Connection, bounds: str
) -> None:
    plain.execute(f"create table by_hand partition of tokens {bounds}".encode())
    assert await ensure_partitions(database, ttl_max=TTL_MAX * 2, days=DAYS)
    async with database.connection() as connection:
        [one] = [each for each in await attached_partitions(connection) if each.name == "by_hand"]
    assert (one.begins_at is None) == (bounds == "default")


async def test_a_partition_that_is_dropped_meanwhile_is_not_there(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """In older releases (16.2, say) its bounds are an error."""
    plain.execute("create table by_hand partition of tokens default")
    async with database.connection() as connection:
        with psycopg.connect(ready_dsn) as dropping:
            dropping.execute("drop table by_hand")
            reading = asyncio.ensure_future(attached_partitions(connection))
            await waiting_for_locks(plain)
        names = [each.name for each in await reading]
    assert names
    assert "by_hand" not in names
