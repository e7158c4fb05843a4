"""A rotated token ends early once it is silent and its successor is in use: not before, and told as any revocation."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from tests.store.support import changes, position
from tests.store.test_plans import scanned
from tests.store.uses import token, use
from watchword.token import format_token_id
from watchword_server.store.database import Database, query
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.silent import end_silent
from watchword_server.store.usage import store_uses

SILENCE = timedelta(minutes=10)
SLACK = timedelta(minutes=2)
LONG_AGO = timedelta(hours=1)
# How late a loaded machine may be between two statements.
LATE = timedelta(seconds=30)


def rotated(
    plain: psycopg.Connection, *, ago: timedelta = LONG_AGO, ends_in: timedelta = LONG_AGO
) -> tuple[UUID, UUID]:
    """A token that was rotated so long ago, in its grace period, and its successor."""
    old, new = token(plain), token(plain)
    plain.execute(
        "update tokens set successor_id = %s, rotated_at = now() - %s, expires_at = now() + %s where id = %s",
        [new, ago, ends_in, old],
    )
    plain.execute("update tokens set predecessor_id = %s, lineage_id = %s where id = %s", [old, old, new])
    return old, new


async def used(database: Database, token_id: UUID, ago: timedelta = timedelta()) -> None:
    await store_uses(database, [use(token_id, ago=ago.total_seconds())], slack=timedelta())


async def ended(database: Database) -> int:
    return await end_silent(database, silence=SILENCE, slack=SLACK)


def live(plain: psycopg.Connection, token_id: UUID) -> bool:
    row = plain.execute("select expires_at > now() from tokens where id = %s", [token_id]).fetchone()
    assert row is not None
    return bool(row[0])


@pytest.mark.parametrize(
    ("silent_for", "ends"),
    [(SILENCE + SLACK - LATE, False), (SILENCE + SLACK, True), (SILENCE + SLACK + LATE, True)],
    ids=["before", "at", "after"],
)
async def test_a_silent_token_ends_once_its_successor_is_used(
    database: Database, plain: psycopg.Connection, silent_for: timedelta, ends: bool
) -> None:
    old, new = rotated(plain)
    await used(database, old, silent_for)
    assert (await ended(database), live(plain, old)) == (0, True), "nobody uses its successor"
    await used(database, new)
    assert (await ended(database), live(plain, old)) == (int(ends), not ends)
    assert live(plain, new)


@pytest.mark.parametrize(
    ("rotated_ago", "ends"),
    [(SILENCE + SLACK - LATE, False), (SILENCE + SLACK, True)],
    ids=["before", "at"],
)
async def test_one_that_was_never_used_is_silent_since_it_was_rotated(
    database: Database, plain: psycopg.Connection, rotated_ago: timedelta, ends: bool
) -> None:
    """So is one that was used before that only: its holder may be asleep, and has to have this long to wake up."""
    old, new = rotated(plain, ago=rotated_ago)
    earlier, later = rotated(plain, ago=rotated_ago)
    await used(database, earlier, LONG_AGO)
    await used(database, new)
    await used(database, later)
    await ended(database)
    assert (live(plain, old), live(plain, earlier)) == (not ends, not ends)


async def test_its_end_is_recorded_and_told_at_a_position(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    old, new = rotated(plain)
    await used(database, new)
    before = (await position(store)).number
    assert await ended(database) == 1
    assert (await position(store)).number == before + 1
    assert changes(plain, before + 1) == {old}
    events = plain.execute(
        "select token_id, actor, details from audit_events where action = 'rotation_ended'"
    ).fetchall()
    assert events == [(old, "watchword", {"successor": format_token_id(new)})]
    assert await ended(database) == 0, "ended is ended"
    assert (await position(store)).number == before + 1


@pytest.mark.parametrize("state", ["revoked", "expired", "idle", "not rotated"])
async def test_what_has_ended_or_was_not_rotated_is_left_alone(
    database: Database, plain: psycopg.Connection, state: str
) -> None:
    old, new = rotated(plain)
    await used(database, new)
    change = {
        "revoked": "revoked_at = now()",
        "expired": "expires_at = now()",
        "idle": "idle_seconds = 1, idle_expires_at = now()",
        "not rotated": "successor_id = null, rotated_at = null",
    }[state]
    plain.execute(f"update tokens set {change} where id = %s", [old])
    assert await ended(database) == 0


@pytest.mark.parametrize("change", ["revoked_at = now()", "expires_at = now()"], ids=["revoked", "expired"])
async def test_one_whose_successor_has_ended_keeps_its_grace(
    database: Database, plain: psycopg.Connection, change: str
) -> None:
    """It is all that its holder has left."""
    old, new = rotated(plain)
    await used(database, new)
    plain.execute(f"update tokens set {change} where id = %s", [new])
    assert (await ended(database), live(plain, old)) == (0, True)


async def test_several_servers_end_each_once_and_many_in_chunks(database: Database, plain: psycopg.Connection) -> None:
    for _ in range(25):
        _, new = rotated(plain)
        await used(database, new)
    rounds = [end_silent(database, silence=SILENCE, slack=SLACK, chunk=4) for _ in range(3)]
    assert sum(await asyncio.gather(*rounds)) + await ended(database) == 25
    assert plain.execute("select count(distinct token_id), count(*) from audit_events").fetchone() == (25, 25)


async def test_looking_for_silent_tokens_reads_the_use_of_those_alone(
    database: Database, plain: psycopg.Connection
) -> None:
    await ensure_partitions(database, ttl_max=timedelta(days=300), days=30)
    _, new = rotated(plain)
    await used(database, new)
    await used(database, token(plain, ends_in=timedelta(days=200)))
    connection = await database.connect()
    arguments = (SILENCE.total_seconds(), 10)
    assert len(await scanned(connection, query("silent_rotations"), arguments, table="token_usage")) == 1
    await connection.close()
