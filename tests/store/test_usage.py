"""What is stored of tokens' use: merged, bounded, and only of tokens that are real and meant for who speaks of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.store.support import new_token, waiting_for_locks
from tests.store.uses import SLACK, token, use
from watchword_server.store.contract import StoreUnavailableError, Use
from watchword_server.store.database import Database
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.usage import store_uses


async def stored(database: Database, *uses: Use) -> tuple[int, int]:
    return await store_uses(database, uses, slack=SLACK)


def events(plain: psycopg.Connection, action: str) -> list[tuple[Any, ...]]:
    return plain.execute(
        "select token_id, actor, address, details from audit_events where action = %s order by details ->> 'network'",
        [action],
    ).fetchall()


async def test_uses_are_merged_with_what_is_known(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one, other = token(plain), token(plain)
    assert await stored(
        database,
        use(one, count=3, ago=60, address="192.0.2.1", scopes=["orders.read"]),
        use(other, count=1),
    ) == (2, 0)
    assert await stored(
        database, use(one, count=4, ago=5, address="192.0.2.7", scopes=["orders.write", "orders.read"])
    ) == (1, 0)
    known = await store.usage([one, other])
    (latest,) = known[one]
    assert (latest.service, latest.count, latest.address) == ("orders", 7, "192.0.2.7")
    assert latest.scopes == ["orders.read", "orders.write"]
    assert timedelta(seconds=4) < datetime.now(UTC) - latest.last_used_at < timedelta(seconds=35)
    assert known[other][0].count == 1


async def test_counts_that_are_made_up_take_nobody_elses_with_them(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one, other = token(plain), token(plain)
    for _ in range(3):
        assert await stored(database, use(one, count=2**64), use(other)) == (2, 0)
    known = await store.usage([one, other])
    assert 2**52 <= known[one][0].count <= 2**53
    assert known[other][0].count == 3


async def test_an_older_use_takes_nothing_back(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one = token(plain)
    await stored(database, use(one, address="192.0.2.1"))
    (before,) = (await store.usage([one]))[one]
    await stored(
        database,
        use(one, ago=300, address="192.0.2.2"),
    )
    await stored(database, use(one, ago=0, address=""))
    (after,) = (await store.usage([one]))[one]
    assert after.last_used_at >= before.last_used_at
    assert (after.count, after.address) == (3, "192.0.2.1")


async def test_services_are_told_apart_the_latest_first(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one = token(plain, audiences=["orders", "billing", "watchword"])
    await stored(
        database, use(one, service="orders", ago=60), use(one, service="watchword", ago=5), use(one, service="billing")
    )
    assert [found.service for found in (await store.usage([one]))[one]] == ["billing", "watchword", "orders"]


async def test_uses_of_tokens_that_are_not_there_or_not_meant_for_the_service_are_left_out(
    database: Database, plain: psycopg.Connection
) -> None:
    orders, anyone = token(plain), token(plain, audiences=["*"])
    made_up = new_token().record.token_id
    assert await stored(
        database,
        use(made_up),
        use(orders),
        use(orders, service="mallory"),
        use(anyone),
        use(anyone, service="mallory"),
        use(anyone, service="watchword"),
    ) == (3, 0)
    rows = set(plain.execute("select token_id, service from token_usage").fetchall())
    assert rows == {(orders, "orders"), (anyone, "orders"), (anyone, "mallory")}


async def test_a_use_is_never_before_the_token_was_made(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one = token(plain)
    await stored(database, use(one, ago=30 * 86_400))
    row = plain.execute("select created_at from tokens where id = %s", [one]).fetchone()
    assert row is not None
    assert (await store.usage([one]))[one][0].last_used_at == row[0]


async def test_a_token_without_a_partition_for_its_use_does_not_fail_the_others(
    database: Database, plain: psycopg.Connection
) -> None:
    one, homeless = token(plain), token(plain, ends_in=timedelta(days=35))
    name = f"token_usage_{partition_of(plain, homeless).removeprefix('tokens_')}"
    assert partition_of(plain, one) != partition_of(plain, homeless)
    plain.execute(f"drop table {name}")
    made_up = UUID(int=2**128 - 1)
    assert await stored(database, use(homeless), use(one), use(made_up)) == (1, 0)
    assert plain.execute("select token_id from token_usage").fetchall() == [(one,)]


def partition_of(plain: psycopg.Connection, token_id: UUID) -> str:
    row = plain.execute("select tableoid::regclass::text from tokens where id = %s", [token_id]).fetchone()
    assert row is not None
    return str(row[0])


async def test_five_thousand_tokens(database: Database, plain: psycopg.Connection) -> None:
    ids = [new_token(ends_in=timedelta(days=1, seconds=number)).record.token_id for number in range(5_000)]
    plain.execute(
        "insert into tokens (id, pepper_version, digest, subject, audiences, scopes, created_at, expires_at)"
        " select id, 1, '', 'caller', '{orders}', '{orders.read}', now(), now() + interval '1 day'"
        " from unnest(%s::uuid []) as given (id)",
        [ids],
    )
    for number in range(0, len(ids), 1_000):
        chunk = [
            use(token_id, address="192.0.2.1", scopes=["orders.read"]) for token_id in ids[number : number + 1_000]
        ]
        assert await stored(database, *chunk) == (1_000, 0)
        assert await stored(database, *chunk) == (1_000, 0)
    assert plain.execute("select count(*), sum(use_count) from token_usage").fetchone() == (5_000, 10_000)


async def test_two_servers_that_store_the_same_tokens_never_wait_for_each_other(
    database: Database, plain: psycopg.Connection
) -> None:
    ids = [token(plain) for _ in range(50)]
    forth, back = [use(token_id) for token_id in ids], [use(token_id) for token_id in reversed(ids)]
    await asyncio.gather(*(stored(database, *(forth if number % 2 else back)) for number in range(20)))
    assert plain.execute("select distinct use_count from token_usage").fetchall() == [(20,)]


async def test_scopes_and_networks_are_bounded(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one = token(plain)
    for number in range(20):
        scopes = [f"orders.s{number}-{each}" for each in range(8)]
        await stored(database, use(one, address=f"192.0.{number}.1", scopes=scopes))
    (found,) = (await store.usage([one]))[one]
    assert len(found.scopes) == 64
    assert found.scopes[:8] == [f"orders.s0-{each}" for each in range(8)]
    row = plain.execute("select networks from token_usage").fetchone()
    assert row is not None
    assert row[0] == [f"192.0.{number}.0/24" for number in range(19, 3, -1)]


@pytest.mark.parametrize(
    ("home", "same", "away", "network"),
    [
        ("192.0.2.1", "192.0.2.254", "192.0.3.1", "192.0.3.0/24"),
        ("2001:db8:1::1", "2001:db8:1:ffff::1", "2001:db8:2::1", "2001:db8:2::/48"),
        ("192.0.2.1", "192.0.2.1", "2001:db8:2::1", "2001:db8:2::/48"),
    ],
)
async def test_a_token_from_a_network_it_never_came_from_is_an_event_once(
    database: Database, plain: psycopg.Connection, home: str, same: str, away: str, network: str
) -> None:
    one = token(plain, audiences=["orders", "billing"])
    assert await stored(database, use(one, address=home)) == (1, 0), "the first network is no news"
    assert await stored(database, use(one, address=same), use(one, service="billing", address=home)) == (2, 0)
    assert await stored(database, use(one)) == (1, 0)
    both = use(one, address=away), use(one, service="billing", address=away)
    assert await stored(database, *both) == (2, 1), "one event for a token and a network"
    assert await stored(database, *both) == (2, 0)
    (event,) = events(plain, "new_network")
    assert (event[0], event[1], event[2], event[3]["network"]) == (one, event[3]["service"], away, network)
    assert event[3]["service"] in ("orders", "billing")


async def test_a_verifier_that_makes_up_networks_writes_so_many_events_and_no_more(
    database: Database, plain: psycopg.Connection
) -> None:
    ids = [token(plain) for _ in range(150)]
    await stored(database, *(use(token_id, address="192.0.2.1") for token_id in ids))
    assert await stored(database, *(use(token_id, address="198.51.100.1") for token_id in ids)) == (150, 150)
    assert len(events(plain, "new_network")) == 100


async def test_a_network_known_at_one_service_is_no_news_at_another(
    database: Database, plain: psycopg.Connection
) -> None:
    one = token(plain, audiences=["orders", "billing"])
    await stored(database, use(one, address="192.0.2.1"))
    assert await stored(database, use(one, service="billing", address="192.0.2.9")) == (1, 0)
    assert events(plain, "new_network") == []


async def test_a_successor_comes_from_where_its_predecessor_came_from(
    database: Database, plain: psycopg.Connection
) -> None:
    """Of tokens that renew themselves daily all would be news once a day, and a thief that rotates first none."""
    first, second, third = (token(plain, audiences=["orders", "billing"]) for _ in range(3))
    for successor, predecessor in ((second, first), (third, second)):
        plain.execute("update tokens set predecessor_id = %s where id = %s", [predecessor, successor])
    await stored(database, use(first, address="192.0.2.1"))
    await stored(database, use(first, service="billing", address="2001:db8::1"))
    assert len(events(plain, "new_network")) == 1
    assert await stored(database, use(second)) == (1, 0), "from where is not known"
    home = use(second, address="192.0.2.7"), use(second, service="billing", address="2001:db8:0:1::1")
    assert await stored(database, *home) == (2, 0)
    away = use(third, address="198.51.100.1"), use(third, service="billing", address="198.51.100.2")
    assert await stored(database, *away) == (2, 1), "news of the first use of a successor, also two generations on"
    assert await stored(database, *away) == (2, 0)
    assert await stored(database, use(third, address="192.0.2.1")) == (1, 0)
    assert [event[0] for event in events(plain, "new_network")] == [third, first]


async def test_two_servers_that_hear_first_of_a_successor_keep_what_both_saw(
    ready_dsn: str, database: Database, plain: psycopg.Connection
) -> None:
    first, second = token(plain), token(plain)
    plain.execute("update tokens set predecessor_id = %s where id = %s", [first, second])
    await stored(database, use(first, address="192.0.2.1"))
    with psycopg.connect(ready_dsn) as other:
        other.execute(
            "insert into token_usage values (%s, 'orders', now(), 1, '198.51.100.1', '{}', '{198.51.100.0/24}')",
            [second],
        )
        storing = asyncio.create_task(stored(database, use(second, address="203.0.113.1")))
        await waiting_for_locks(plain)
    assert await storing == (1, 1)
    known = plain.execute("select networks from token_usage where token_id = %s", [second]).fetchall()
    assert known == [(["203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24"],)]


async def test_what_cannot_be_stored_is_stored_as_a_whole_or_not_at_all(
    database: Database, plain: psycopg.Connection
) -> None:
    one = token(plain)
    plain.execute("alter table audit_events rename to hidden")
    await stored(database, use(one, address="192.0.2.1"))
    with pytest.raises(Exception, match="UndefinedTable"):
        await stored(database, use(one, address="198.51.100.1"))
    assert plain.execute("select use_count from token_usage").fetchall() == [(1,)]


async def test_a_store_that_is_away_is_an_error_that_passes(
    ready_dsn: str, database: Database, plain: psycopg.Connection
) -> None:
    one = token(plain)
    with psycopg.connect(ready_dsn) as holder:
        holder.execute("lock table token_usage in exclusive mode")
        storing = asyncio.create_task(stored(database, use(one)))
        await waiting_for_locks(plain)
        plain.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
        with pytest.raises(StoreUnavailableError):
            await storing
    assert await stored(database, use(one)) == (1, 0)
