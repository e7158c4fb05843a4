"""Nobody is locked out unawares: what would leave no administrator is refused, and nothing is done."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.store.support import EVERYTHING, OPERATOR, live, position, revocation, rotated, stored, waiting_for_locks
from watchword_server.store.administrators import ENDS_SOON
from watchword_server.store.contract import LastAdministratorError, Narrowed, Narrowing, Selector
from watchword_server.store.postgres import PostgresStore


async def administrator(store: PostgresStore, *args: str, **kwargs: Any) -> UUID:
    rights = {"scopes": ["watchword.*"], "audiences": ["watchword"], "grants": [EVERYTHING]}
    return await stored(store, *args, **rights, **kwargs)


async def test_the_last_administrator_is_not_revoked(store: PostgresStore, plain: psycopg.Connection) -> None:
    admin = await administrator(store, "ada")
    child = await stored(store, "child", issued_by=admin)
    was = await position(store)
    for ending in (
        revocation(token_id=admin),
        revocation(token_id=admin, cascade=True),
        revocation(token_id=admin, proved=True, within=[]),
        revocation(subject="ada"),
        revocation(subject="ada", block=True),
    ):
        with pytest.raises(LastAdministratorError):
            await store.revoke(ending)
    assert await live(store, admin, child) == {admin, child}
    assert await position(store) == was
    assert plain.execute("select count(*) from audit_events where action <> 'bootstrap'").fetchone() == (1,)


async def test_one_of_two_is_revoked_and_the_last_by_force(store: PostgresStore) -> None:
    one, two = await administrator(store), await administrator(store)
    assert (await store.revoke(revocation(token_id=one))).count == 1
    assert (await store.revoke(revocation(token_id=two, force=True))).count == 1


async def test_whoever_ends_everything_means_it(store: PostgresStore) -> None:
    admin = await administrator(store)
    instant = (await store.read([admin])).now
    everything = replace(revocation(), selector=Selector(issued_before=instant))
    assert (await store.revoke(everything)).count == 1


async def test_the_last_administrators_life_is_not_cut_short_to_a_moment(store: PostgresStore) -> None:
    admin = await administrator(store, ends_in=timedelta(days=30))
    before = (await store.read([admin])).rows[admin].expires_at

    def narrowing(life: timedelta, *, force: bool = False) -> Narrowing:
        return Narrowing(admin, (), life, OPERATOR, "", (EVERYTHING,), force)

    with pytest.raises(LastAdministratorError):
        await store.narrow(narrowing(timedelta(seconds=1)))
    assert (await store.read([admin])).rows[admin].expires_at == before
    # Until everybody hears of it there is time to make another.
    assert isinstance(await store.narrow(narrowing(ENDS_SOON + timedelta(hours=1))), Narrowed)
    assert isinstance(await store.narrow(narrowing(timedelta(hours=1), force=True)), Narrowed)
    await administrator(store)
    assert isinstance(await store.narrow(narrowing(timedelta(seconds=1))), Narrowed)


@pytest.mark.parametrize("column", ["expires_at", "idle_expires_at"])
async def test_one_that_has_ended_does_not_count(store: PostgresStore, plain: psycopg.Connection, column: str) -> None:
    one, ended = await administrator(store), await administrator(store)
    plain.execute(f"update tokens set {column} = now() where id = '{ended}'")
    with pytest.raises(LastAdministratorError):
        await store.revoke(revocation(token_id=one))
    # It administered nothing any more.
    plain.execute("update tokens set revoked_at = now() where id = %s", [one])
    assert (await store.revoke(revocation(token_id=ended))).count == 1


async def test_an_administrators_successor_counts(store: PostgresStore) -> None:
    old = await administrator(store)
    await rotated(store, old)
    assert (await store.revoke(revocation(token_id=old))).count == 1


async def test_a_rotated_administrator_does_not_count(store: PostgresStore) -> None:
    """Its grace is soon over, and nobody could rotate it again."""
    old = await administrator(store)
    successor = (await rotated(store, old)).successor.token_id
    narrowing = Narrowing(successor, ("watchword.*",), None, OPERATOR, "too much", (EVERYTHING,))
    with pytest.raises(LastAdministratorError):
        await store.narrow(narrowing)
    with pytest.raises(LastAdministratorError):
        await store.revoke(revocation(token_id=successor))
    assert await live(store, old, successor) == {old, successor}


async def test_a_tied_administrator_is_missed_as_well(store: PostgresStore) -> None:
    issuer = await stored(store, "issuer")
    admin = await administrator(store, "ada", issued_by=issuer, tied_to=issuer)
    with pytest.raises(LastAdministratorError):
        await store.revoke(revocation(token_id=issuer))
    assert await live(store, issuer, admin) == {issuer, admin}


async def test_others_in_the_transaction_are_ended(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    admin, *others = await administrator(store), *[await stored(store) for _ in range(6)]
    endings = [revocation(token_id=token_id) for token_id in (*others[:3], admin, *others[3:])]
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        first = asyncio.ensure_future(store.revoke(revocation(subject="nobody's")))
        waiting = asyncio.ensure_future(store.revoke(revocation(token_id=await stored(store))))
        await waiting_for_locks(plain)
        together = [asyncio.ensure_future(store.revoke(ending)) for ending in endings]
        await asyncio.sleep(0)
        blocker.commit()
    await asyncio.gather(first, waiting)
    outcomes = await asyncio.gather(*together, return_exceptions=True)
    assert isinstance(outcomes.pop(3), LastAdministratorError)
    assert all(not isinstance(outcome, BaseException) and outcome.count == 1 for outcome in outcomes)
    assert await live(store, admin, *others) == {admin}


async def test_of_the_last_two_administrators_one_is_left(store: PostgresStore, other: PostgresStore) -> None:
    """Two servers, each of which ends one of them at the same moment."""
    kept: list[UUID] = []
    for _ in range(10):
        pair = [await administrator(store), await administrator(store)]
        if kept:
            await store.revoke(revocation(token_id=kept[0]))
        endings = [revocation(token_id=token_id) for token_id in pair]
        outcomes = await asyncio.gather(store.revoke(endings[0]), other.revoke(endings[1]), return_exceptions=True)
        kept = list(await live(store, *pair))
        assert [type(outcome) for outcome in outcomes].count(LastAdministratorError) == 1
        assert len(kept) == 1
