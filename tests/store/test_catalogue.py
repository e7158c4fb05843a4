"""The catalogue, listings page by page, audit events, housekeeping and administrators."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from tests.store.support import DAYS, OPERATOR, TTL_MAX, new_token, revocation, stored
from watchword_server.rules.tokens import Grant
from watchword_server.store.administrators import last_administrator_ends_at
from watchword_server.store.contract import Actor, ScopeEntry, ScopeOwned, TokenQuery
from watchword_server.store.database import Database
from watchword_server.store.event_contract import AuditEvent, EventQuery
from watchword_server.store.housekeeping import keep_house
from watchword_server.store.postgres import PostgresStore

ORDERS, BILLING = Actor("orders", None, "test"), Actor("billing", None, "test")


def entries(*names: str, description: str = "") -> list[ScopeEntry]:
    return [ScopeEntry(name, description, "ignored: the actor is the owner") for name in names]


async def test_first_owner_keeps_a_name(store: PostgresStore) -> None:
    assert await store.register_scopes(entries("orders.read", "orders.write"), ORDERS) == 2
    assert await store.register_scopes(entries("orders.read"), BILLING) == ScopeOwned("orders.read", "orders")
    (entry,) = await store.scopes_named(["orders.read"])
    assert entry.owner == "orders"


async def test_registering_is_all_or_nothing(store: PostgresStore) -> None:
    await store.register_scopes(entries("orders.read"), ORDERS)
    before = await store.events(EventQuery())
    assert await store.register_scopes(entries("a.first", "orders.read", "z.last"), BILLING) == ScopeOwned(
        "orders.read", "orders"
    )
    assert await store.scopes_named(["a.first", "z.last"]) == []
    assert await store.events(EventQuery()) == before


async def test_registering_ones_own_again_updates_its_description(store: PostgresStore) -> None:
    await store.register_scopes(entries("orders.read", description="old"), ORDERS)
    assert await store.register_scopes(entries("orders.read", "orders.new", description="new"), ORDERS) == 1
    assert [entry.description for entry in await store.scopes_named(["orders.read", "orders.new"])] == ["new", "new"]


async def test_of_many_owners_at_once_one_gets_the_name(store: PostgresStore) -> None:
    names = [f"contested.n{n}" for n in range(5)]
    actors = [Actor(f"owner{n}", None, "test") for n in range(6)]
    # In different orders: what would deadlock if the statement did not sort.
    outcomes = await asyncio.gather(
        *(store.register_scopes(entries(*(names if n % 2 else names[::-1])), actor) for n, actor in enumerate(actors))
    )
    assert sorted(map(str, outcomes), key=len)[0] == "5"
    assert sum(isinstance(outcome, ScopeOwned) for outcome in outcomes) == 5
    assert len({entry.owner for entry in await store.scopes_named(names)}) == 1


async def test_watchwords_own_scopes_are_catalogued(store: PostgresStore) -> None:
    below = {name for name in await store.scope_names() if name.startswith("watchword.")}
    assert below == {f"watchword.{verb}" for verb in ("issue", "validate", "revoke", "read", "register")}
    assert await store.register_scopes(entries("watchword.issue"), ORDERS) == ScopeOwned("watchword.issue", "watchword")


async def test_catalogue_pages_hold_every_name_once_in_order(store: PostgresStore) -> None:
    await store.register_scopes(entries(*(f"page.n{n:02}" for n in range(23))), ORDERS)
    seen: list[str] = []
    while page := await store.scopes(limit=5, after=seen[-1] if seen else ""):
        assert len(page) <= 5
        seen += [entry.name for entry in page]
    assert set(seen) == await store.scope_names()
    assert len(seen) == len(set(seen)) == 28
    assert seen == sorted(seen)


async def test_token_pages_hold_every_live_token_once_in_order_of_their_ends(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    tokens = [new_token("me" if n % 2 else "you", ends_in=timedelta(hours=n + 1)) for n in range(20)]
    await asyncio.gather(*(store.issue(token) for token in tokens))
    ids = [token.record.token_id for token in tokens]
    await store.revoke(revocation(token_id=ids[3]))
    plain.execute("update tokens set expires_at = now() where id = %s", [ids[5]])
    seen: list[UUID] = []
    while page := (await store.tokens(TokenQuery(limit=3, after=seen[-1] if seen else None)))[0]:
        seen += [row.token_id for row in page]
    assert seen == [token_id for token_id in ids if token_id not in (ids[3], ids[5])]
    mine, now = await store.tokens(TokenQuery(subject="me", include_inactive=True))
    assert [row.token_id for row in mine] == ids[1::2]
    assert abs(datetime.now(UTC) - now) < timedelta(hours=1)


async def test_tokens_are_listed_by_issuer(store: PostgresStore) -> None:
    issuer = await stored(store)
    children = {await stored(store, issued_by=issuer) for _ in range(3)}
    page, _ = await store.tokens(TokenQuery(issued_by=issuer))
    assert {row.token_id for row in page} == children
    assert (await store.tokens(TokenQuery(issued_by=min(children))))[0] == []


async def test_event_pages_hold_every_event_once_newest_first(store: PostgresStore) -> None:
    ids = [await stored(store) for _ in range(7)]
    await store.revoke(revocation(token_id=ids[0]))
    seen: list[AuditEvent] = []
    while page := await store.events(EventQuery(limit=3, before=seen[-1].event_id if seen else None)):
        seen += page
    assert len(seen) == len({event.event_id for event in seen}) == 8
    assert [event.event_id for event in seen] == sorted((event.event_id for event in seen), reverse=True)
    assert [event.token_id for event in await store.events(EventQuery(action="revoke"))] == [ids[0]]
    assert {event.action for event in await store.events(EventQuery(token_id=ids[0]))} == {"bootstrap", "revoke"}
    assert len(await store.events(EventQuery(actor=OPERATOR.subject))) == 8
    assert await store.events(EventQuery(since=datetime.now(UTC) + timedelta(hours=1))) == []


async def test_housekeeping_counts_live_tokens_and_forgets_old_request_ids(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    await store.register_scopes(entries("orders.read", "orders.write"), ORDERS)
    ids = [await stored(store, scopes=["orders.read"], request_id=f"r{n}") for n in range(3)]
    await store.revoke(revocation(token_id=ids[0]))
    plain.execute("update issue_requests set created_at = now() - interval '25 hours' where request_id = 'r0'")
    # Twice at once, as two servers would.
    await asyncio.gather(*(keep_house(database, ttl_max=TTL_MAX, partition_days=DAYS) for _ in range(2)))
    counts = {entry.name: entry for entry in await store.scopes_named(["orders.read", "orders.write"])}
    assert (counts["orders.read"].live_tokens, counts["orders.write"].live_tokens) == (2, 0)
    counted_at = counts["orders.read"].counted_at
    assert counted_at is not None
    assert plain.execute("select array_agg(request_id order by 1) from issue_requests").fetchone() == (["r1", "r2"],)
    await stored(store, scopes=["orders.read"])
    await keep_house(database, ttl_max=TTL_MAX, partition_days=DAYS)
    (again,) = await store.scopes_named(["orders.read"])
    assert (again.live_tokens, again.counted_at) == (2, counted_at), "counted again within a quarter of an hour"


EVERYTHING = Grant(("watchword.*",), ("*",), ("*",))


async def test_administrator_is_who_can_still_issue_administrators(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    assert (await last_administrator_ends_at(database))[0] is None
    await stored(store, scopes=["watchword.*"], audiences=["watchword"])
    await stored(store, scopes=["watchword.*"], audiences=["*"], grants=[EVERYTHING])
    await stored(store, scopes=["watchword.issue"], audiences=["watchword"], grants=[EVERYTHING])
    assert (await last_administrator_ends_at(database))[0] is None, "none of these is one"
    ends = []
    for days in (2, 5):
        token = new_token(
            scopes=["watchword.*"], audiences=["watchword"], grants=[EVERYTHING], ends_in=timedelta(days=days)
        )
        await store.issue(token)
        ends.append(token.record)
    assert (await last_administrator_ends_at(database))[0] == ends[1].expires_at
    await store.revoke(revocation(token_id=ends[1].token_id))
    assert (await last_administrator_ends_at(database))[0] == ends[0].expires_at
    plain.execute("update tokens set expires_at = now() where id = %s", [ends[0].token_id])
    assert (await last_administrator_ends_at(database))[0] is None
