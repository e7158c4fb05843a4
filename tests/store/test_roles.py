"""The serving role has the rights that docs/operate.md gives it, which are all it needs, and no others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import psycopg
import pytest

from tests.databases import Databases
from tests.store.support import (
    DAYS,
    EPOCH,
    OPERATOR,
    TTL_MAX,
    WAIT_SECONDS_MAX,
    live,
    new_token,
    position,
    revocation,
    stored,
)
from watchword_server.keyring import Keyring
from watchword_server.store import migrate
from watchword_server.store.administrators import last_administrator_ends_at
from watchword_server.store.contract import Issued, RequestIdUsed, ScopeEntry, TokenQuery
from watchword_server.store.database import Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica, WatcherRow
from watchword_server.store.housekeeping import forget, keep_house
from watchword_server.store.partitions import Partition, ensure_partitions
from watchword_server.store.peppers import check_peppers
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.purge import Retention, purge

OPERATE = Path(__file__).parents[2] / "docs" / "operate.md"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A database set up as the documentation says."""

    owner_dsn: str
    serving_dsn: str


def documented_statements() -> list[str]:
    """The SQL of docs/operate.md for an external database, statement by statement."""
    section = OPERATE.read_text("utf-8").partition("## Starting with an external database")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [statement.strip() for block in blocks for statement in block.split(";") if statement.strip()]


@pytest.fixture
def deployment(postgres: Databases) -> Iterator[Deployment]:
    # Roles belong to the whole server: names of this test's own.
    mark = uuid4().hex[:12]
    names = {"watchword_owner": f"ww_owner_{mark}", "watchword": f"ww_{mark}"}
    statements = [
        re.sub(r"\bwatchword(_owner)?\b", lambda found: names[found[0]], statement)
        for statement in documented_statements()
    ]
    creating = [statement for statement in statements if statement.startswith("create ")]
    granting = [statement for statement in statements if statement.startswith("grant ")]
    assert len(creating) + len(granting) == len(statements)
    assert len(creating) == 3

    def dsn(role: str) -> str:
        address = urlsplit(postgres.dsn(names["watchword"]))
        return address._replace(netloc=f"{role}:{quote('...')}@{address.netloc.rpartition('@')[2]}").geturl()

    owner_dsn = dsn(names["watchword_owner"])
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as admin:
        try:
            for statement in creating:
                admin.execute(statement.encode())
            migrate.upgrade(owner_dsn)
            with psycopg.connect(owner_dsn, autocommit=True) as owner:
                for statement in granting:
                    owner.execute(statement.encode())
            yield Deployment(owner_dsn, dsn(names["watchword"]))
        finally:
            postgres.drop(names["watchword"])
            for role in names.values():
                admin.execute(f"drop role if exists {role}".encode())


async def test_serving_role_can_do_everything_that_serving_takes(deployment: Deployment) -> None:
    assert all(state.applied_at is not None for state in migrate.status(deployment.serving_dsn))
    database = await Database.open(deployment.serving_dsn, pool_size_max=4)
    keyring = Keyring.generate()
    await check_peppers(database, {1: keyring.check_value(1)})
    assert await ensure_partitions(database, ttl_max=TTL_MAX, days=DAYS)
    store = PostgresStore(database)
    parent = await stored(store)
    child = new_token(issued_by=parent, request_id="once")
    assert isinstance(await store.issue(child), Issued)
    assert await store.issue(new_token(request_id="once")) == RequestIdUsed(child.record.token_id)
    assert await store.register_scopes([ScopeEntry("orders.read", "", "operator")], OPERATOR) == 1
    assert (await store.revoke(revocation(token_id=parent, cascade=True))).count == 2
    assert await live(store, parent, child.record.token_id) == set()
    assert (await position(store)).number == 1
    assert len((await store.tokens(TokenQuery(include_inactive=True)))[0]) == 2
    # Two issued, the registration, the revocation, and the child that it ended too.
    assert len(await store.events(EventQuery())) == 5
    assert await store.scopes(limit=1, after="")
    await keep_house(database, ttl_max=TTL_MAX + timedelta(days=60), partition_days=DAYS)
    old = Partition("tokens", EPOCH, EPOCH + timedelta(days=1))
    async with database.connection() as connection:
        bounds = old.lower_bound, old.upper_bound
        assert await connection.fetchval("select ensure_partition('tokens', $1, $2, $3)", old.name, *bounds)
    done = await purge(database, Retention(timedelta(days=30), timedelta(days=400)), now=datetime.now(UTC))
    assert ([one.name for one in done.dropped], done.put_off) == ([old.name], {})
    assert (await last_administrator_ends_at(database))[0] is None
    await store.close()
    await takes_part(database)
    await database.close()


async def takes_part(database: Database) -> None:
    """All that a server does as one of many."""
    await forget(database, changes_kept_seconds=0)
    fleet = PostgresFleet(database)
    heard = asyncio.ensure_future(fleet.wait_for_news(WAIT_SECONDS_MAX))
    fleet.open()
    key, epoch = uuid4(), await fleet.epoch()
    assert await fleet.join(NewReplica(key, epoch, "one", 60))
    assert await fleet.renew(key, epoch)
    page = await fleet.feed(None, None)
    assert (await fleet.feed(page.number, page.mark)).continues
    assert await fleet.publish(key, epoch, page.number)
    watcher = WatcherRow(key, b"key", "orders", "pod", "py", "10.0.0.1", "orders", 0, 5.0, attached=True)
    await fleet.report(key, [watcher])
    await fleet.report(key, [watcher])
    assert len(await fleet.watchers(limit=1, after=None)) == 1
    await fleet.drain(key)
    assert await fleet.fence(key, 1)
    await fleet.leave(key)
    await fleet.settle(await fleet.begin_epoch(epoch))
    assert (await fleet.roll()).settled
    await heard
    await forget(database, changes_kept_seconds=0)
    await fleet.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_events set actor = 'somebody else'",
        "delete from audit_events",
        "truncate audit_events",
        "delete from tokens",
        "truncate tokens",
        "delete from token_usage",
        "truncate changes",
        "update positions set mark = gen_random_uuid()",
        "update changes set position = 0",
        "delete from feed",
        "insert into feed select from feed",
        "delete from scopes",
        "update pepper_checks set check_value = ''",
        "delete from pepper_checks",
        "delete from _yoyo_migrations",
        "create table mine ()",
        "drop table tokens",
        "alter table tokens add column mine text",
        "alter table audit_events disable trigger all",
    ],
)
def test_serving_role_cannot_change_the_schema_or_what_was_recorded(deployment: Deployment, statement: str) -> None:
    with psycopg.connect(deployment.serving_dsn) as serving, pytest.raises(psycopg.errors.InsufficientPrivilege):
        serving.execute(statement.encode())


@pytest.mark.parametrize(
    ("parent", "partition"),
    [
        ("scopes", "scopes_20270101"),
        ("tokens", "scopes"),
        ("tokens", "tokens_20270101; drop table tokens"),
        ("tokens", "audit_events_20270101"),
        ("pg_class", "pg_class_20270101"),
    ],
)
def test_serving_role_makes_partitions_of_watchword_and_nothing_else(
    deployment: Deployment, parent: str, partition: str
) -> None:
    with psycopg.connect(deployment.serving_dsn) as serving, pytest.raises(psycopg.errors.RaiseException):
        serving.execute("select ensure_partition(%s, %s, %s, %s)", [parent, partition, uuid4(), uuid4()])


async def test_serving_role_cannot_drop_what_may_be_valid_or_tell_of_it(deployment: Deployment) -> None:
    """Somebody who took over a server: neither live tokens, nor the traces, also not of what they made themselves."""
    database = await Database.open(deployment.serving_dsn, pool_size_max=1)
    made = await ensure_partitions(database, ttl_max=TTL_MAX, days=1)
    await database.close()
    lately = Partition("audit_events", *(datetime.now(UTC) - timedelta(days=days) for days in (80, 70)))
    with psycopg.connect(deployment.serving_dsn, autocommit=True) as serving:
        bounds = [lately.lower_bound, lately.upper_bound]
        serving.execute("select ensure_partition('audit_events', %s, %s, %s)", [lately.name, *bounds])
        for name in [*made, lately.name]:
            with pytest.raises(psycopg.errors.RaiseException, match="not past"):
                serving.execute("select drop_partition(%s, %s)", [name.rpartition("_")[0], name])


@pytest.mark.parametrize("function", ["ensure_partition(text, text, uuid, uuid)", "drop_partition(text, text)"])
def test_public_may_neither_make_partitions_nor_drop_them(deployment: Deployment, function: str) -> None:
    with psycopg.connect(deployment.owner_dsn) as owner:
        row = owner.execute("select has_function_privilege('public', %s, 'execute')", [function]).fetchone()
    assert row == (False,)
