"""Revocations that wait together share a transaction and its position, and each is told what it did itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import psycopg

from tests.store.support import (
    WAIT_SECONDS_MAX,
    changes,
    live,
    new_token,
    position,
    revocation,
    stored,
    tree,
    until,
    waiting_for_locks,
)
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import Revoked, RowRefusedError
from watchword_server.store.database import Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore

ORDERS_ONLY = Grant(("orders.*",), ("*",), ("orders",))


async def test_positions_commit_in_order_and_without_gaps(ready_dsn: str, plain: psycopg.Connection) -> None:
    """A reader that sees a position sees the changes of every position up to it, whoever committed them."""
    databases = [await Database.open(ready_dsn, pool_size_max=4) for _ in range(2)]
    stores = [PostgresStore(database) for database in databases]
    tokens = [new_token(f"subject{n % 40}") for n in range(120)]
    await asyncio.gather(*(stores[0].issue(token) for token in tokens))
    revocations = [revocation(token_id=token.record.token_id) for token in tokens[:80]]
    revocations += [revocation(subject=f"subject{n}") for n in range(40)]

    async def work(of: int) -> list[Revoked]:
        return [await stores[of % 2].revoke(one) for one in revocations[of::8]]

    ending = asyncio.gather(*(work(of) for of in range(8)))
    seen: set[int] = set()

    async def look() -> bool:
        row = plain.execute(
            "select feed.position, array(select number from positions where number > 0 order by 1),"
            " array(select distinct position from changes order by 1) from feed"
        ).fetchone()
        assert row is not None
        assert row[1] == row[2] == list(range(1, row[0] + 1))
        seen.add(row[0])
        return ending.done()

    await until(look)
    outcomes = [outcome for each in await ending for outcome in each]
    assert sum(outcome.count for outcome in outcomes) == len(tokens)
    # Eight at a time cannot share fewer, and each store's take turns.
    assert max(seen) >= 80 // 8
    assert {outcome.position.number for outcome in outcomes} <= set(range(1, max(seen) + 1))
    for one, database in zip(stores, databases, strict=True):
        await one.close()
        await database.close()


def commits(plain: psycopg.Connection) -> set[str]:
    """The transactions that revocations committed in."""
    return {row[0] for row in plain.execute("select xmin::text from audit_events where action = 'revoke'")}


async def test_revocations_that_wait_together_share_one_transaction(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    tokens = [new_token("subject", issued_by=None) for _ in range(30)]
    await asyncio.gather(*(store.issue(token) for token in tokens))
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        first = asyncio.ensure_future(store.revoke(revocation(token_id=uuid4())))
        await waiting_for_locks(plain)
        ids = [token.record.token_id for token in tokens[:20]]
        ending = [asyncio.ensure_future(store.revoke(revocation(token_id=token_id))) for token_id in ids]
        ending.append(asyncio.ensure_future(store.revoke(revocation(subject="subject"))))
        ending.append(asyncio.ensure_future(store.revoke(revocation(subject="nobody"))))
        await asyncio.sleep(0)
        blocker.commit()
    assert (await first).position.number == 1
    outcomes = await asyncio.gather(*ending)
    assert {outcome.position.number for outcome in outcomes} == {2}
    assert [outcome.count for outcome in outcomes] == [1] * 20 + [10, 0]
    assert len(commits(plain)) == 2
    assert changes(plain, 2) == {token.record.token_id for token in tokens}
    assert (await position(store)).number == 2


async def test_token_named_twice_in_one_transaction_ends_once(store: PostgresStore, plain: psycopg.Connection) -> None:
    token_id, out_of_reach = await stored(store), await stored(store, scopes=["billing.read"])
    outcomes = await asyncio.gather(
        store.revoke(revocation(token_id=token_id, within=[])),
        store.revoke(revocation(token_id=token_id)),
        store.revoke(revocation(token_id=token_id)),
        store.revoke(revocation(token_id=token_id, within=[])),
        store.revoke(revocation(token_id=out_of_reach, proved=False)),
        store.revoke(revocation(token_id=out_of_reach, within=[ORDERS_ONLY])),
        store.revoke(revocation(token_id=out_of_reach, within=[], proved=True)),
        store.revoke(revocation(token_id=uuid4())),
    )
    assert [(one.count, one.out_of_reach, one.refused) for one in outcomes] == [
        (0, 1, True),
        (1, 0, False),
        (0, 0, False),
        (0, 0, False),
        (0, 0, False),
        (0, 1, True),
        (1, 0, False),
        (0, 0, False),
    ]
    assert len(commits(plain)) == 1
    events = await store.events(EventQuery(action="revoke", token_id=token_id))
    assert sorted(event.details["count"] for event in events) == ["0", "0", "1"]


async def test_trees_in_one_transaction_are_each_ended_within_their_own_reach(store: PostgresStore) -> None:
    one, other = await tree(store), await tree(store)
    plainly = await stored(store, issued_by=one[0])
    outcomes = await asyncio.gather(
        store.revoke(revocation(token_id=one[1], cascade=True)),
        store.revoke(revocation(token_id=other[1], cascade=True, within=[])),
        store.revoke(revocation(issued_by=other[2])),
        store.revoke(revocation(token_id=one[0])),
    )
    assert [(outcome.count, outcome.refused) for outcome in outcomes] == [(3, False), (0, True), (1, False), (1, False)]
    assert await live(store, *one, *other, plainly) == {*other[:3], plainly}


async def test_bad_one_fails_alone(store: PostgresStore, plain: psycopg.Connection) -> None:
    tokens = [new_token() for _ in range(9)]
    await asyncio.gather(*(store.issue(token) for token in tokens))
    revocations = [revocation(token_id=token.record.token_id) for token in tokens]
    revocations.insert(4, replace(revocation(token_id=uuid4()), reason="a\x00b"))
    outcomes = await asyncio.gather(*(store.revoke(one) for one in revocations), return_exceptions=True)
    assert isinstance(outcomes.pop(4), RowRefusedError)
    assert [outcome.count for outcome in outcomes if isinstance(outcome, Revoked)] == [1] * 9
    assert await live(store, *(token.record.token_id for token in tokens)) == set()
    assert plain.execute("select count(*) from audit_events where action = 'revoke'").fetchone() == (9,)


async def test_news_is_told_once_for_a_transaction_that_moved_the_position(
    store: PostgresStore, ready_dsn: str
) -> None:
    token_id = await stored(store, "me")
    with psycopg.connect(ready_dsn, autocommit=True) as listener:
        listener.execute("listen watchword_news")
        await store.revoke(revocation(subject="nobody"))
        await asyncio.gather(store.revoke(revocation(subject="me")), store.revoke(revocation(token_id=token_id)))
        await store.revoke(revocation(subject="nobody"))
        # Notifications come in order: what was told before this one has arrived with it.
        listener.execute("select pg_notify('watchword_news', 'end')")
        told = []
        for notification in listener.notifies(timeout=WAIT_SECONDS_MAX):
            told.append(notification.payload)
            if notification.payload == "end":
                break
    assert told == ["", "end"]
