"""Narrow takes rights and life, at a position that names the token, and gives none."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.store.support import (
    EVERYTHING,
    OPERATOR,
    changes,
    position,
    read_one,
    revocation,
    rotated,
    stored,
    waiting_for_locks,
)
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import (
    LastAdministratorError,
    Narrowed,
    Narrowing,
    ScopesNotHeld,
    TokenNotLive,
)
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore

HOUR = timedelta(hours=1)


def narrowing(
    token_id: UUID, *scopes: str, life: timedelta | None = None, within: Any = (EVERYTHING,), force: bool = False
) -> Narrowing:
    return Narrowing(token_id, scopes, life, OPERATOR, "less", within, force)


async def test_scopes_and_life_are_taken_at_a_position_that_names_the_token(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store, scopes=["orders.read", "orders.write", "billing.*"])
    before = await position(store)
    outcome = await store.narrow(narrowing(token_id, "orders.write", "billing.*", life=HOUR))
    assert isinstance(outcome, Narrowed)
    record = await read_one(store, token_id)
    assert outcome.record == record
    assert list(record.scopes) == ["orders.read"]
    assert not outcome.refused
    assert outcome.position.number == before.number + 1
    assert changes(plain, outcome.position.number) == {token_id}
    assert plain.execute(
        "select t.expires_at - e.occurred_at from tokens t join audit_events e on e.token_id = t.id "
        "where e.action = 'narrow'"
    ).fetchone() == (HOUR,)
    [event] = await store.events(EventQuery(action="narrow"))
    assert (event.token_id, event.actor) == (token_id, OPERATOR)
    assert event.details == {
        "reason": "less",
        "removed_scopes": "orders.write billing.*",
        "expires_at": record.expires_at.isoformat(),
    }


async def test_life_is_never_prolonged(store: PostgresStore) -> None:
    token_id = await stored(store, ends_in=HOUR)
    end = (await read_one(store, token_id)).expires_at
    outcome = await store.narrow(narrowing(token_id, life=2 * HOUR))
    assert isinstance(outcome, Narrowed)
    assert outcome.record.expires_at == end == (await read_one(store, token_id)).expires_at


async def test_scopes_that_are_not_held_are_named_and_nothing_is_done(store: PostgresStore) -> None:
    token_id = await stored(store, scopes=["orders.read"])
    was = await position(store)
    outcome = await store.narrow(narrowing(token_id, "orders.read", "orders.write", "orders.*", life=HOUR))
    assert outcome == ScopesNotHeld(["orders.write", "orders.*"])
    assert list((await read_one(store, token_id)).scopes) == ["orders.read"]
    assert await position(store) == was


async def test_what_is_not_live_is_not_narrowed(store: PostgresStore, plain: psycopg.Connection) -> None:
    revoked, expired, idle = [await stored(store) for _ in range(3)]
    await store.revoke(revocation(token_id=revoked))
    plain.execute("update tokens set expires_at = now() where id = %s", [expired])
    plain.execute("update tokens set idle_expires_at = now() where id = %s", [idle])
    for token_id in (revoked, expired, idle, uuid4()):
        assert await store.narrow(narrowing(token_id, "orders.read")) == TokenNotLive()


async def test_the_live_successor_is_left_alone_and_named(store: PostgresStore) -> None:
    first = await stored(store, scopes=["orders.read", "orders.write"])
    assert await _left_alone(store, first) is None
    second = (await rotated(store, first)).successor.token_id
    latest = (await rotated(store, second)).successor.token_id
    assert await _left_alone(store, first) == latest
    assert list((await read_one(store, latest)).scopes) == ["orders.read", "orders.write"]
    assert await _left_alone(store, latest) is None
    await store.revoke(revocation(token_id=latest))
    assert await _left_alone(store, first) is None


async def _left_alone(store: PostgresStore, token_id: UUID) -> UUID | None:
    outcome = await store.narrow(narrowing(token_id, life=HOUR))
    assert isinstance(outcome, Narrowed)
    return outcome.live_successor_id


async def test_out_of_reach_is_refused(store: PostgresStore) -> None:
    token_id = await stored(store, scopes=["billing.read"])
    was = await position(store)
    outcome = await store.narrow(narrowing(token_id, "billing.read", within=(Grant(("orders.*",), ("*",), ("*",)),)))
    assert isinstance(outcome, Narrowed)
    assert (outcome.refused, outcome.position) == (True, was)
    assert list((await read_one(store, token_id)).scopes) == ["billing.read"]


async def test_two_narrowings_at_once_both_count(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token_id = await stored(store, scopes=["orders.read", "orders.write"])
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        first = asyncio.ensure_future(store.narrow(narrowing(token_id, "orders.read")))
        await waiting_for_locks(plain)
        second = asyncio.ensure_future(store.narrow(narrowing(token_id, "orders.read", "orders.write")))
        blocker.commit()
    assert isinstance(await first, Narrowed)
    assert await second == ScopesNotHeld(["orders.read"])
    assert list((await read_one(store, token_id)).scopes) == ["orders.write"]


@pytest.mark.parametrize("force", [True, False])
async def test_the_last_administrator_stays_one_unless_forced(store: PostgresStore, force: bool) -> None:
    admin = await stored(store, scopes=["watchword.*", "orders.read"], audiences=["watchword"], grants=[EVERYTHING])
    plainly = await store.narrow(narrowing(admin, "orders.read"))
    assert isinstance(plainly, Narrowed)
    if force:
        assert isinstance(await store.narrow(narrowing(admin, "watchword.*", force=True)), Narrowed)
    else:
        with pytest.raises(LastAdministratorError):
            await store.narrow(narrowing(admin, "watchword.*"))
    assert list((await read_one(store, admin)).scopes) == ([] if force else ["watchword.*"])


async def test_what_was_no_administrator_is_narrowed_though_there_is_none(store: PostgresStore) -> None:
    reader = await stored(store, scopes=["watchword.*"], audiences=["watchword"])
    assert isinstance(await store.narrow(narrowing(reader, "watchword.*")), Narrowed)
