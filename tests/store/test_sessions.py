"""Sessions move on with their use, as far as it is known, and one that has ended stays ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from tests.store.support import waiting_for_locks
from tests.store.uses import SLACK, idle_left, session, token, use
from watchword_server.store.contract import Use
from watchword_server.store.database import Database
from watchword_server.store.usage import store_uses

IDLE = timedelta(minutes=30)
SECOND = timedelta(seconds=1)
# A loaded machine takes its time between two statements.
LATE = timedelta(seconds=30)


async def stored(database: Database, *uses: Use) -> None:
    await store_uses(database, uses, slack=SLACK)


async def test_a_session_ends_its_idle_timeout_and_the_slack_after_its_last_use(
    database: Database, plain: psycopg.Connection
) -> None:
    one, other = session(plain), session(plain)
    await stored(database, use(one), use(other, ago=60))
    assert IDLE + SLACK - LATE < idle_left(plain, one) <= IDLE + SLACK
    assert IDLE + SLACK - timedelta(seconds=60) - LATE < idle_left(plain, other) <= IDLE + SLACK - timedelta(seconds=60)


@pytest.mark.parametrize(
    ("left", "moves"),
    [(LATE, True), (timedelta(), False), (-SECOND, False), (-IDLE, False)],
    ids=["before", "at", "after", "long after"],
)
async def test_ended_is_ended(database: Database, plain: psycopg.Connection, left: timedelta, moves: bool) -> None:
    """However late a report comes: also where the use that it tells of was before the end."""
    one = session(plain, left=left)
    await stored(database, use(one, ago=LATE.total_seconds()))
    assert (idle_left(plain, one) > LATE) is moves
    assert plain.execute("select use_count from token_usage").fetchall() == [(1,)], "the use is known all the same"


async def test_a_session_beyond_its_hard_end_stays_as_it_is(database: Database, plain: psycopg.Connection) -> None:
    one = session(plain)
    plain.execute("update tokens set expires_at = now() where id = %s", [one])
    await stored(database, use(one))
    assert idle_left(plain, one) <= timedelta(minutes=10)


async def test_a_revoked_session_stays_as_it_is(database: Database, plain: psycopg.Connection) -> None:
    one = session(plain)
    plain.execute("update tokens set revoked_at = now() where id = %s", [one])
    await stored(database, use(one))
    assert idle_left(plain, one) <= timedelta(minutes=10)


async def test_a_late_report_never_moves_a_session_back(database: Database, plain: psycopg.Connection) -> None:
    one = session(plain, left=IDLE)
    before = plain.execute("select idle_expires_at from tokens").fetchall()
    await stored(database, use(one, ago=(SLACK + LATE).total_seconds()))
    assert plain.execute("select idle_expires_at from tokens").fetchall() == before


async def test_the_latest_use_at_any_service_counts(database: Database, plain: psycopg.Connection) -> None:
    one = session(plain)
    plain.execute("update tokens set audiences = '{orders,billing}'")
    await stored(database, use(one, ago=600), use(one, service="billing"))
    assert idle_left(plain, one) > IDLE + SLACK - LATE


async def test_a_use_that_does_not_count_moves_nothing(database: Database, plain: psycopg.Connection) -> None:
    one = session(plain)
    await stored(database, use(one, service="mallory"))
    assert idle_left(plain, one) <= timedelta(minutes=10)


async def test_other_tokens_have_nothing_to_move(database: Database, plain: psycopg.Connection) -> None:
    one = token(plain)
    await stored(database, use(one))
    assert plain.execute("select idle_expires_at from tokens").fetchall() == [(None,)]


@pytest.mark.parametrize("ends_by", ["a revocation", "its end"])
async def test_a_session_that_ends_while_its_row_is_waited_for_stays_ended(
    ready_dsn: str, database: Database, plain: psycopg.Connection, ends_by: str
) -> None:
    one = session(plain)
    with psycopg.connect(ready_dsn) as holder:
        if ends_by == "a revocation":
            holder.execute("update tokens set revoked_at = now()")
        else:
            holder.execute("update tokens set idle_expires_at = clock_timestamp()")
        storing = asyncio.create_task(stored(database, use(one)))
        await waiting_for_locks(plain)
        holder.commit()
        await storing
    assert idle_left(plain, one) <= timedelta(minutes=10)


async def test_sessions_and_a_revocation_of_them_never_wait_for_each_other(
    ready_dsn: str, database: Database, plain: psycopg.Connection
) -> None:
    """Both lock rows in order of id."""
    ids = sorted(session(plain) for _ in range(50))
    backwards = [use(token_id) for token_id in reversed(ids)]
    with psycopg.connect(ready_dsn) as revoking:
        revoking.execute("select from tokens where id = any(%s) order by id for update", [ids[:25]])
        storing = asyncio.create_task(stored(database, *backwards))
        await waiting_for_locks(plain)
        revoking.execute("select from tokens where id = any(%s) order by id for update", [ids[25:]])
        revoking.execute("update tokens set revoked_at = now()")
        revoking.commit()
        await storing
    assert plain.execute(
        "select count(*) from tokens where idle_expires_at > now() + interval '11 min'"
    ).fetchone() == (0,)
