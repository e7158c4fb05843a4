"""Rotations beside each other and beside revocations: one successor, and none behind a revoked token."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest

from tests.store.support import (
    changes,
    live,
    read_one,
    revocation,
    rotated,
    rotation,
    stored,
    waiting_for_locks,
)
from watchword_server.store.contract import (
    AlreadyRotated,
    Rotated,
    TokenNotLive,
)
from watchword_server.store.postgres import PostgresStore

HOUR = timedelta(hours=1)


async def test_rotations_that_wait_together_share_a_transaction(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    tokens = [await read_one(store, await stored(store, f"s{n}")) for n in range(30)]
    twice = tokens[0]
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        first = asyncio.ensure_future(rotated(store, await stored(store)))
        await waiting_for_locks(plain)
        asked = [asyncio.ensure_future(store.rotate(rotation(one))) for one in (*tokens, twice)]
        await asyncio.sleep(0)
        blocker.commit()
    outcomes = await asyncio.gather(*asked)
    won = [outcome for outcome in outcomes if isinstance(outcome, Rotated)]
    assert {outcome.position.number for outcome in won} == {(await first).position.number + 1}
    assert len(won) == 30
    assert AlreadyRotated(won[0].successor.token_id) in outcomes
    assert changes(plain, won[0].position.number) == {one.token_id for one in tokens}


async def test_of_two_servers_that_rotate_one_token_one_wins(store: PostgresStore, other: PostgresStore) -> None:
    for grace in [HOUR, timedelta()] * 8:
        record = await read_one(store, await stored(store))
        outcomes = await asyncio.gather(
            *(one.rotate(rotation(record, grace=grace)) for one in (store, other, store, other))
        )
        [won] = [outcome for outcome in outcomes if isinstance(outcome, Rotated)]
        assert [outcome for outcome in outcomes if outcome is not won] == [AlreadyRotated(won.successor.token_id)] * 3


async def test_a_revoked_token_never_slips_a_successor_in(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """The revocation came first and is not committed yet: the rotation waits for it, and then sees it."""
    token_id = await stored(store)
    record = await read_one(store, token_id)
    with psycopg.connect(ready_dsn) as revoker:
        revoker.execute("update tokens set revoked_at = now() where id = %s", [token_id])
        rotating = asyncio.ensure_future(store.rotate(rotation(record)))
        await waiting_for_locks(plain)
        revoker.commit()
    assert await rotating == TokenNotLive()
    assert plain.execute("select count(*) from tokens").fetchone() == (1,)


async def test_a_deadlock_with_a_revocation_is_done_again(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """A retry locks the lost successor after the old token, whatever the order of their ids. Postgres ends one of two
    that wait for each other; if that is ours, nobody hears of it."""
    first = await rotated(store, await stored(store), request_id="once")
    lost, old = first.successor.token_id, first.rotated.token_id
    with psycopg.connect(ready_dsn) as rival:
        # The rival waits long enough that it is our transaction which notices the deadlock and is ended.
        rival.execute("set deadlock_timeout = '60s'")
        rival.execute("update tokens set revoked_at = now() where id = %s", [lost])
        rotating = asyncio.ensure_future(store.rotate(rotation(first.rotated, request_id="once")))
        await waiting_for_locks(plain)
        await asyncio.to_thread(rival.execute, "update tokens set name = 'rival' where id = %s", [old])
        rival.commit()
    assert await rotating == AlreadyRotated(lost)


@pytest.mark.parametrize("named", ["subject", "owner", "issued_by", "cascade"])
async def test_a_subjects_revocation_ends_the_successor_that_is_just_being_made(
    store: PostgresStore, other: PostgresStore, plain: psycopg.Connection, ready_dsn: str, named: str
) -> None:
    """The other order: the rotation holds the old row until it commits, and stores what the revocation's statement,
    which had begun before, cannot see."""
    issuer = await stored(store, "issuer")
    token_id = await stored(store, "mine", issued_by=issuer, owner="ada")
    record = await read_one(store, token_id)
    ending_of = {
        "subject": revocation(subject="mine"),
        "owner": revocation(subject="ada"),
        "issued_by": revocation(issued_by=issuer),
        "cascade": revocation(token_id=token_id, cascade=True),
    }[named]
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        rotating = asyncio.ensure_future(store.rotate(rotation(record)))
        await waiting_for_locks(plain)
        ending = asyncio.ensure_future(other.revoke(ending_of))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    outcome = await rotating
    assert isinstance(outcome, Rotated)
    assert (await ending).count == 2
    assert await live(store, token_id, outcome.successor.token_id) == set()


async def test_a_revocation_against_rotations_leaves_no_live_successor(
    store: PostgresStore, other: PostgresStore
) -> None:
    """Two servers, one that rotates from token to token as fast as it can, and one that ends the subject's tokens."""
    for round_number in range(12):
        subject = f"subject{round_number}"
        first = await stored(store, subject)
        made = [first]
        begun = asyncio.Event()

        async def rotate(token_id=first, made=made, begun=begun) -> None:  # type: ignore[no-untyped-def]
            record = await read_one(store, token_id)
            while True:
                outcome = await store.rotate(rotation(record))
                if not isinstance(outcome, Rotated):
                    return
                record = outcome.successor
                made.append(record.token_id)
                begun.set()

        rotating = asyncio.ensure_future(rotate())
        await begun.wait()
        if round_number % 2:
            await other.revoke(revocation(subject=subject))
        else:
            await other.revoke(revocation(token_id=first, cascade=True))
        await rotating
        assert await live(store, *made) == set()


async def test_revoking_an_old_token_names_its_live_successor(store: PostgresStore) -> None:
    token_id = await stored(store)
    second = (await rotated(store, token_id)).successor
    third = (await rotated(store, second.token_id)).successor
    revoked = await store.revoke(revocation(token_id=token_id))
    assert (revoked.count, revoked.live_successor_id) == (1, third.token_id)
    cascading = await store.revoke(revocation(token_id=second.token_id, cascade=True))
    assert (cascading.count, cascading.live_successor_id) == (2, None)
    assert await live(store, token_id, second.token_id, third.token_id) == set()


async def test_cascade_takes_successors_and_what_they_issued(store: PostgresStore) -> None:
    root = await stored(store, "root")
    successor = (await rotated(store, root)).successor.token_id
    child = await stored(store, "child", issued_by=successor)
    childs_successor = (await rotated(store, child)).successor.token_id
    leaf = await stored(store, "leaf", issued_by=childs_successor)
    assert (await store.revoke(revocation(token_id=root, cascade=True))).count == 5
    assert await live(store, root, successor, child, childs_successor, leaf) == set()
