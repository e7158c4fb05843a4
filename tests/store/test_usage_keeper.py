"""What was counted reaches the database, sooner or later, whatever becomes of the database meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from tests.clocks import ManualClock
from tests.store.support import new_token, until, waiting_for_locks
from tests.store.uses import token, use
from watchword_server.answer.alarms import Alarms
from watchword_server.answer.usage import UsageBuffer
from watchword_server.observe.metrics import Metrics
from watchword_server.store.contract import StoreError
from watchword_server.store.database import Database
from watchword_server.store.event_contract import Event
from watchword_server.usage_keeper import REFUSED_MAX, UsageKeeper


class Kept:
    """A keeper and all that it works with."""

    def __init__(self, database: Database, *, interval_seconds: float = 3600) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.events: list[Event] = []
        self.buffer = UsageBuffer(self.clock.boottime)
        self.keeper = UsageKeeper(
            self.buffer,
            Alarms(self.events.append, count=self.metrics.alarms.add, clock=self.clock.boottime),
            database,
            self.metrics,
            interval_seconds=interval_seconds,
            slack=timedelta(),
            clock=self.clock.boottime,
        )


@pytest.fixture
def kept(database: Database) -> Kept:
    return Kept(database)


def stored(plain: psycopg.Connection) -> tuple[int, int]:
    """Rows, and uses in them."""
    row = plain.execute("select count(*), coalesce(sum(use_count), 0)::bigint from token_usage").fetchone()
    assert row is not None
    return row[0], row[1]


def until_stored(plain: psycopg.Connection, wanted: tuple[int, int]) -> Awaitable[bool | None]:
    async def there() -> bool:
        return stored(plain) == wanted

    return until(there)


async def test_a_flush_stores_all_there_is_and_each_token_once(kept: Kept, plain: psycopg.Connection) -> None:
    one, other = token(plain), token(plain)
    for _ in range(3):
        kept.keeper.reported([use(one), use(other)], [])
    await kept.keeper.flush()
    assert stored(plain) == (2, 6)
    assert (len(kept.buffer), kept.metrics.usage_rows) == (0, 2), "one row for each token and flush"
    await kept.keeper.flush()
    assert kept.metrics.usage_rows == 2, "what was not used since writes nothing"


@pytest.mark.parametrize("fault", ["the connection breaks", "the table is away"])
async def test_a_store_that_cannot_take_it_loses_no_count(
    kept: Kept, ready_dsn: str, plain: psycopg.Connection, fault: str
) -> None:
    one = token(plain)
    kept.keeper.reported([use(one, count=5)], [])
    if fault == "the table is away":
        plain.execute("alter table token_usage rename to hidden")
        with pytest.raises(StoreError):
            await kept.keeper.flush()
        plain.execute("alter table hidden rename to token_usage")
    else:
        with psycopg.connect(ready_dsn) as holder:
            holder.execute("lock table token_usage in exclusive mode")
            flushing = asyncio.create_task(kept.keeper.flush())
            await waiting_for_locks(plain)
            plain.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            )
            with pytest.raises(StoreError):
                await flushing
    kept.keeper.reported([use(one, count=2)], [])
    assert kept.buffer.dropped == 0
    await kept.keeper.flush()
    assert stored(plain) == (1, 7)


async def test_an_outage_makes_no_use_look_later_than_it_was(kept: Kept, plain: psycopg.Connection) -> None:
    one = token(plain)
    kept.keeper.reported([use(one)], [])
    plain.execute("alter table token_usage rename to hidden")
    for _ in range(3):
        kept.clock.advance(60)
        with pytest.raises(StoreError):
            await kept.keeper.flush()
    plain.execute("alter table hidden rename to token_usage")
    await kept.keeper.flush()
    row = plain.execute("select extract(epoch from now() - last_used_at) from token_usage").fetchone()
    assert row is not None
    assert 180 <= row[0] < 240


async def test_what_the_database_refuses_does_not_keep_the_rest(
    kept: Kept, plain: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that verifiers may report is refused; a defect must not stop all counting."""
    one = token(plain)
    plain.execute("alter table token_usage add constraint odd check (use_count <> 13)")
    kept.keeper.reported([use(one, count=13)], [])
    await kept.keeper.flush()
    assert (stored(plain), kept.buffer.dropped) == ((0, 0), 13)
    assert "uses of tokens refused" in caplog.text
    kept.keeper.reported([use(one)], [])
    await kept.keeper.flush()
    assert stored(plain) == (1, 1)


async def test_it_stores_by_itself_and_what_is_left_at_the_end(database: Database, plain: psycopg.Connection) -> None:
    kept = Kept(database, interval_seconds=0.05)
    one, other = token(plain), token(plain)
    async with kept.keeper.running():
        kept.keeper.reported([use(one)], [])
        await until_stored(plain, (1, 1))
        kept.keeper.reported([use(one)], [])
        await until_stored(plain, (1, 2))
    seldom = Kept(database, interval_seconds=3600)
    async with seldom.keeper.running():
        seldom.keeper.reported([use(other)], [])
        assert stored(plain) == (1, 2)
    assert stored(plain) == (2, 3)


async def test_it_goes_on_after_an_outage(
    database: Database, plain: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(database, interval_seconds=0.05)
    one = token(plain)
    plain.execute("alter table token_usage rename to hidden")

    async def put_off() -> bool:
        return "storing uses put off" in caplog.text

    async with kept.keeper.running():
        kept.keeper.reported([use(one)], [])
        await until(put_off)
        plain.execute("alter table hidden rename to token_usage")
        await until_stored(plain, (1, 1))


async def test_an_end_during_an_outage_is_an_end(
    kept: Kept, plain: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    plain.execute("alter table token_usage rename to hidden")
    async with kept.keeper.running():
        kept.keeper.reported([use(token(plain))], [])
    assert "uses of 1 tokens are lost" in caplog.text


async def test_an_outage_loses_no_alarm(kept: Kept, plain: psycopg.Connection) -> None:
    one = token(plain)
    plain.execute("update tokens set allowed_networks = '{192.0.2.0/24}'")
    kept.keeper.reported([], [use(one)])
    plain.execute("alter table tokens rename to hidden")
    with pytest.raises(StoreError):
        await kept.keeper.flush()
    plain.execute("alter table hidden rename to tokens")
    for _ in range(2):
        await kept.keeper.flush()
    assert [event.token_id for event in kept.events] == [one]


async def test_refused_calls_are_an_alarm_for_bound_tokens_that_are_real_and_meant_for_the_service(
    kept: Kept, plain: psycopg.Connection
) -> None:
    one, foreign = token(plain), token(plain, audiences=["billing"])
    plain.execute("update tokens set allowed_networks = '{192.0.2.0/24}'")
    free = token(plain)
    refused = [use(one, count=3), use(foreign), use(free), use(new_token().record.token_id)]
    kept.keeper.reported([], refused * REFUSED_MAX)
    await kept.keeper.flush()
    assert [(event.action, event.token_id) for event in kept.events] == [("bound_token_refused", one)]
    assert stored(plain) == (0, 0)


async def test_refusals_that_one_service_makes_up_keep_no_other_from_being_heard(
    kept: Kept, plain: psycopg.Connection
) -> None:
    one = token(plain)
    plain.execute("update tokens set allowed_networks = '{192.0.2.0/24}'")
    made_up = [replace(use(new_token().record.token_id), service="billing")] * REFUSED_MAX
    for _ in range(2):
        kept.keeper.reported([], made_up)
    kept.keeper.reported([], [use(one)])
    await kept.keeper.flush()
    assert [(event.action, event.token_id) for event in kept.events] == [("bound_token_refused", one)]
