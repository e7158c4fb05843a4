"""A preview is what the revocation would come to, and nothing comes of it."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from tests.store.support import OPERATOR, live, position, revocation, rotated, stored, tree
from watchword_server.rules.tokens import Grant
from watchword_server.store import ending
from watchword_server.store.contract import Actor, Revocation, Selector
from watchword_server.store.postgres import PostgresStore

ORDERS_ONLY = Grant(("orders.*",), ("*",), ("orders",))


async def test_a_preview_shows_the_tree_and_ends_nothing(store: PostgresStore, plain: psycopg.Connection) -> None:
    ids = await tree(store)
    successor = (await rotated(store, ids[1])).successor.token_id
    tied = await stored(store, "tied", issued_by=ids[0], tied_to=ids[0], scopes=["billing.read"])
    was, events = await position(store), plain.execute("select count(*) from audit_events").fetchone()
    ending_of = revocation(token_id=ids[0], cascade=True, within=[ORDERS_ONLY])
    preview = await store.preview(ending_of)
    assert (preview.count, preview.out_of_reach, preview.position, preview.refused) == (6, 0, was, False)
    assert {record.token_id for record in preview.records} == {*ids, successor, tied}
    assert all(record.revoked_at is None for record in preview.records)
    assert await live(store, *ids, successor, tied) == {*ids, successor, tied}
    assert await position(store) == was
    assert plain.execute("select count(*) from audit_events").fetchone() == events
    assert (await store.revoke(ending_of)).count == preview.count


async def test_a_preview_counts_what_lies_out_of_reach_and_is_refused_as_the_revocation(store: PostgresStore) -> None:
    near, wide = await stored(store), await stored(store, scopes=["billing.read"])
    preview = await store.preview(revocation(subject="caller", within=[ORDERS_ONLY]))
    assert (preview.count, preview.out_of_reach) == (1, 1)
    assert [record.token_id for record in preview.records] == [near]
    refused = await store.preview(revocation(token_id=wide, within=[ORDERS_ONLY]))
    assert (refused.count, refused.refused, refused.records) == (0, True, [])


async def test_a_preview_shows_the_first_of_many_and_counts_all(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "PREVIEWED_MAX", 3)
    monkeypatch.setattr(ending, "_ROWS_AT_A_TIME", 2)
    mine, *others = [await stored(store) for _ in range(8)]
    everything = Revocation(
        Selector(issued_before=(await store.read([mine])).now),
        Actor("operator", mine, "test"),
        "",
        cascade=False,
        within=revocation().within,
    )
    preview = await store.preview(everything)
    assert (preview.count, len(preview.records)) == (7, 3)
    assert {record.token_id for record in preview.records} < set(others)
    assert (await store.preview(replace(everything, actor=OPERATOR))).count == 8


async def test_a_preview_waits_for_nobody_at_the_position(store: PostgresStore, ready_dsn: str) -> None:
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        assert (await store.preview(revocation(token_id=token_id))).count == 1
        blocker.rollback()
