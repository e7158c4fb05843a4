"""Revoke of everything, and of more than a position can name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.store.support import (
    OPERATOR,
    changes,
    live,
    new_token,
    revocation,
    stored,
)
from watchword_server.rules.tokens import Grant
from watchword_server.store import ending
from watchword_server.store.contract import Actor, Revocation, Selector
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore

ORDERS_ONLY = Grant(("orders.*",), ("*",), ("orders",))


def everything(plain: psycopg.Connection) -> list[bool]:
    """For each position taken, whether it stands for all tokens."""
    return [row[0] for row in plain.execute("select everything from positions where number > 0 order by number")]


def of_everything(issued_before: datetime, *, actor: Actor = OPERATOR, **kwargs: Any) -> Revocation:
    """A revocation of all that was issued before an instant."""
    return replace(revocation(**kwargs), selector=Selector(issued_before=issued_before), actor=actor)


async def now(store: PostgresStore) -> datetime:
    """The database's clock."""
    return (await store.read([uuid4()])).now


async def test_everything_ends_what_was_issued_before_save_the_callers_token(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    mine, revoked, *old = [await stored(store, f"subject{n}") for n in range(6)]
    await store.revoke(revocation(token_id=revoked))
    # To the microsecond: what was issued at that instant was not issued before it.
    instant = (await store.read([old[-1]])).rows[old[-1]].created_at
    at_last = old.pop()
    caller = Actor("operator", mine, "test")
    outcome = await store.revoke(of_everything(instant, actor=caller))
    assert (outcome.count, outcome.out_of_reach, outcome.position.number) == (3, 0, 2)
    assert await live(store, mine, revoked, at_last, *old) == {mine, at_last}
    [deed] = [event for event in await store.events(EventQuery(action="revoke")) if event.token_id is None]
    assert deed.details == {"count": "3", "reason": "LEAKED", "issued_before": instant.isoformat()}
    [end] = await store.events(EventQuery(action="revoke", token_id=old[0]))
    assert end.details == {"reason": "LEAKED", "by_event": str(deed.event_id)}
    assert everything(plain) == [False, True]
    assert changes(plain, 2) == set()
    assert (await store.revoke(of_everything(instant, actor=caller))).position == outcome.position


async def test_everything_is_what_lies_within_reach(store: PostgresStore) -> None:
    near, wide = await stored(store), await stored(store, scopes=["billing.read"])
    outcome = await store.revoke(of_everything(await now(store), within=[ORDERS_ONLY]))
    assert (outcome.count, outcome.out_of_reach) == (1, 1)
    assert await live(store, near, wide) == {wide}


async def test_everything_with_cascade_ends_what_those_issued_since_and_spares_the_callers_own(
    store: PostgresStore,
) -> None:
    root = await stored(store)
    mine = await stored(store, issued_by=root)
    instant = await now(store)
    since, anew = await stored(store, issued_by=root), await stored(store, issued_by=mine)
    outcome = await store.revoke(of_everything(instant, actor=Actor("operator", mine, "test"), cascade=True))
    assert outcome.count == 2
    assert await live(store, root, mine, since, anew) == {mine, anew}


async def test_everything_is_ended_however_much_it_is(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time: what comes in later pages is ended, recorded and counted as what came first."""
    monkeypatch.setattr(ending, "_ROWS_AT_A_TIME", 7)
    tokens = [new_token() for _ in range(50)]
    await asyncio.gather(*(store.issue(token) for token in tokens))
    outcome = await store.revoke(of_everything(await now(store)))
    assert outcome.count == 50
    assert await live(store, *(token.record.token_id for token in tokens)) == set()
    assert len(await store.events(EventQuery(action="revoke"))) == 51


async def test_more_ids_than_a_position_can_hold_are_everything(
    store: PostgresStore, plain: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "CHANGES_MAX", 3)
    for subject, count in (("three", 3), ("four", 4)):
        for _ in range(count):
            await stored(store, subject)
        assert (await store.revoke(revocation(subject=subject))).count == count
    assert everything(plain) == [False, True]
    assert (len(changes(plain, 1)), changes(plain, 2)) == (3, set())
