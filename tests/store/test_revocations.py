"""Revoke ends what it names, to the leaves if asked, and takes positions that commit in order and without gaps."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from tests.store.support import (
    EVERYTHING,
    OPERATOR,
    WAIT_SECONDS_MAX,
    changes,
    live,
    new_token,
    position,
    revocation,
    stored,
    tree,
    waiting_for_locks,
)
from watchword.token import format_token_id
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import Revoked, StoreOverloadedError
from watchword_server.store.database import READS_MAX, READS_WAITING_MAX, Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.revocations import Revocations

ORDERS_ONLY = Grant(("orders.*",), ("*",), ("orders",))


async def test_revoked_token_reads_as_revoked_with_its_reason(store: PostgresStore) -> None:
    token_id = await stored(store)
    revoked = await store.revoke(revocation(token_id=token_id))
    snapshot = await store.read([token_id])
    row = snapshot.rows[token_id]
    assert (row.revoke_reason, revoked.count, revoked.out_of_reach) == ("LEAKED", 1, 0)
    assert row.revoked_at is not None
    assert row.revoked_at <= snapshot.now
    assert snapshot.position == revoked.position


async def test_revoking_again_ends_nothing_and_keeps_the_first_instant(store: PostgresStore) -> None:
    token_id = await stored(store)
    first = await store.revoke(revocation(token_id=token_id))
    at = (await store.read([token_id])).rows[token_id].revoked_at
    again = await store.revoke(revocation(token_id=token_id))
    assert again.count == 0
    assert again.position.number == first.position.number + 1
    assert (await store.read([token_id])).rows[token_id].revoked_at == at


async def test_unknown_token_moves_the_position_as_a_known_one_does(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    """Whoever watches positions must not learn which ids exist."""
    unknown, known = uuid4(), await stored(store)
    before = (await position(store)).number
    first = await store.revoke(revocation(token_id=unknown))
    second = await store.revoke(revocation(token_id=known))
    assert (first.count, first.position.number) == (0, before + 1)
    assert (second.count, second.position.number) == (1, before + 2)
    assert changes(plain, before + 1) == {unknown}


async def test_wrong_secret_ends_nothing_and_moves_the_position(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    before = (await position(store)).number
    revoked = await store.revoke(revocation(token_id=token_id, proved=False, cascade=True))
    assert (revoked.count, revoked.out_of_reach, revoked.position.number) == (0, 0, before + 1)
    assert await live(store, token_id) == {token_id}
    # Told of the id, every verifier would end the streams of a token that is still good: an id is no secret.
    assert changes(plain, before + 1) == set()


async def test_out_of_reach_moves_the_position_and_names_nothing(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store, scopes=["billing.read"])
    before = (await position(store)).number
    revoked = await store.revoke(revocation(token_id=token_id, within=[ORDERS_ONLY]))
    assert (revoked.refused, revoked.position.number) == (True, before + 1)
    assert changes(plain, before + 1) == set()


async def test_subject_without_tokens_leaves_the_position(store: PostgresStore) -> None:
    before = await position(store)
    assert await store.revoke(revocation(subject="nobody")) == Revoked(0, 0, before)


async def test_subject_ends_all_of_its_tokens_and_no_others(store: PostgresStore) -> None:
    mine = [await stored(store, "me") for _ in range(3)]
    other = await stored(store, "me2")
    assert (await store.revoke(revocation(subject="me"))).count == 3
    assert await live(store, *mine, other) == {other}


async def test_expired_token_is_still_revoked(store: PostgresStore, plain: psycopg.Connection) -> None:
    token_id = await stored(store)
    plain.execute("update tokens set expires_at = now() - interval '1 hour'")
    assert (await store.revoke(revocation(token_id=token_id))).count == 1


async def test_without_cascade_what_it_issued_lives_on(store: PostgresStore) -> None:
    ids = await tree(store)
    assert (await store.revoke(revocation(token_id=ids[1]))).count == 1
    assert await live(store, *ids) == {ids[0], *ids[2:]}


@pytest.mark.parametrize("named", ["token_id", "subject", "issued_by"])
async def test_cascade_ends_the_tree_to_its_leaves_at_one_position(
    store: PostgresStore, plain: psycopg.Connection, named: str
) -> None:
    ids = await tree(store)
    bystander = await stored(store, issued_by=ids[0])
    given = {"token_id": ids[1], "subject": "child", "issued_by": ids[1]}[named]
    ended = set(ids[2:] if named == "issued_by" else ids[1:])
    revoked = await store.revoke(revocation(**{named: given}, cascade=True))  # type: ignore[arg-type]  # one of three
    assert revoked.count == len(ended)
    assert await live(store, *ids, bystander) == {*ids, bystander} - ended
    assert changes(plain, revoked.position.number) == ended


@pytest.mark.parametrize("named", ["token_id", "subject"])
async def test_cascade_goes_on_behind_tokens_that_were_revoked_before(store: PostgresStore, named: str) -> None:
    """Whoever first ended the tokens one by one and then asks for the tree means the tree."""
    ids = await tree(store)
    for token_id in ids[:3]:
        await store.revoke(revocation(token_id=token_id))
    given = {"token_id": ids[0], "subject": "root"}[named]
    revoked = await store.revoke(revocation(**{named: given}, cascade=True))  # type: ignore[arg-type]  # one of two
    assert revoked.count == 1
    assert await live(store, *ids) == set()


async def test_cascade_goes_on_behind_expired_and_purged_tokens(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    ids = await tree(store)
    plain.execute("update tokens set expires_at = now() where id = %s", [ids[1]])
    plain.execute("delete from tokens where id = %s", [ids[0]])
    await store.revoke(revocation(token_id=ids[0], cascade=True))
    assert await live(store, *ids) == set()


async def test_cascade_of_a_wide_and_deep_tree(store: PostgresStore) -> None:
    root = await stored(store)
    level, everyone = [root], [root]
    for _ in range(6):
        tokens = [new_token(issued_by=issuer) for issuer in level for _ in range(2)]
        await asyncio.gather(*(store.issue(token) for token in tokens))
        level = [token.record.token_id for token in tokens]
        everyone += level
    assert (await store.revoke(revocation(token_id=root, cascade=True))).count == len(everyone) == 127
    assert await live(store, *everyone) == set()


async def test_cascade_ends_even_where_rows_form_a_ring(store: PostgresStore, plain: psycopg.Connection) -> None:
    """Issue cannot make one; somebody with the database in hand can, and must not hang a revocation with it."""
    ids = await tree(store)
    plain.execute("update tokens set issued_by = %s where id = %s", [ids[3], ids[0]])
    revoked = await asyncio.wait_for(store.revoke(revocation(token_id=ids[1], cascade=True)), timeout=WAIT_SECONDS_MAX)
    assert revoked.count == 4


async def test_out_of_reach_tokens_are_left_alone_and_counted(store: PostgresStore) -> None:
    near = await stored(store, "me", scopes=["orders.read"])
    wide = await stored(store, "me", scopes=["orders.read", "billing.read"])
    elsewhere = await stored(store, "me", audiences=["orders", "billing"])
    giving = await stored(store, "me", grants=[EVERYTHING])
    revoked = await store.revoke(revocation(subject="me", within=[ORDERS_ONLY]))
    assert (revoked.count, revoked.out_of_reach) == (1, 3)
    assert await live(store, near, wide, elsewhere, giving) == {wide, elsewhere, giving}


async def test_nobodys_grants_reach_nothing(store: PostgresStore) -> None:
    token_id = await stored(store)
    revoked = await store.revoke(revocation(token_id=token_id, within=[]))
    assert (revoked.count, revoked.out_of_reach) == (0, 1)
    assert await live(store, token_id) == {token_id}


async def test_presented_token_ends_without_any_grant_and_its_tree_only_within_them(store: PostgresStore) -> None:
    token_id = await stored(store)
    child = await stored(store, issued_by=token_id)
    revoked = await store.revoke(revocation(token_id=token_id, within=[], proved=True, cascade=True))
    assert (revoked.count, revoked.out_of_reach) == (1, 1)
    assert await live(store, token_id, child) == {child}


async def test_cascade_reaches_what_lies_behind_a_token_out_of_reach(store: PostgresStore) -> None:
    root = await stored(store)
    wide = await stored(store, issued_by=root, scopes=["billing.read"])
    leaf = await stored(store, issued_by=wide)
    revoked = await store.revoke(revocation(token_id=root, within=[ORDERS_ONLY], cascade=True))
    assert (revoked.count, revoked.out_of_reach) == (2, 1)
    assert await live(store, root, wide, leaf) == {wide}


async def test_every_revocation_is_recorded_with_what_it_did(store: PostgresStore) -> None:
    token_id = await stored(store, "me")
    await store.revoke(revocation(token_id=token_id, cascade=True))
    await store.revoke(revocation(subject="me"))
    await store.revoke(revocation(issued_by=token_id))
    by_issuer, by_subject, by_id = await store.events(EventQuery(action="revoke"))
    assert (by_id.actor, by_id.token_id) == (OPERATOR, token_id)
    assert by_id.details == {"count": "1", "reason": "LEAKED", "cascade": "true"}
    assert by_subject.details == {"count": "0", "reason": "LEAKED", "subject": "me"}
    assert by_issuer.details["issued_by"] == format_token_id(token_id)


async def test_each_position_has_a_mark_of_its_own(store: PostgresStore, plain: psycopg.Connection) -> None:
    marks = set()
    for _ in range(5):
        await store.revoke(revocation(token_id=uuid4()))
        [row] = plain.execute("select feed.mark, positions.mark from feed join positions on number = position")
        assert row[0] == row[1]
        marks.add(row)
    assert len(marks) == 5


async def test_cancelled_caller_does_not_stop_a_revocation(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=token_id)))
        await waiting_for_locks(plain)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        blocker.commit()
    await store.close()
    assert plain.execute("select revoked_at is not null from tokens").fetchone() == (True,)
    assert plain.execute("select count(*) from changes").fetchone() == (1,)
    assert plain.execute("select count(*) from audit_events where action = 'revoke'").fetchone() == (1,)


async def test_revocations_that_wait_leave_connections_to_the_checks(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """However many wait for the position's row: Validate goes on."""
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        ending = [asyncio.ensure_future(store.revoke(revocation(token_id=uuid4()))) for _ in range(50)]
        await waiting_for_locks(plain)
        assert await live(store, token_id) == {token_id}
        assert not any(one.done() for one in ending)
        blocker.commit()
    assert [one.count for one in await asyncio.gather(*ending)] == [0] * 50


async def test_lists_leave_connections_to_revocations(
    store: PostgresStore, database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """Whoever may read, and lists without end, keeps nobody from revoking, and the health probe from no connection."""
    token_id = await stored(store)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("lock table audit_events in access exclusive mode")
        listing = [asyncio.ensure_future(store.events(EventQuery())) for _ in range(50)]
        await waiting_for_locks(plain)
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            await database.ping()
            ending = asyncio.ensure_future(store.revoke(revocation(token_id=token_id)))
            # Its audit event waits for the table too; it got there.
            await waiting_for_locks(plain, READS_MAX + 1)
        blocker.rollback()
    await ending
    assert not await live(store, token_id)
    await asyncio.gather(*listing)


async def test_too_many_lists_are_refused_at_once(store: PostgresStore, ready_dsn: str) -> None:
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("lock table audit_events in access exclusive mode")
        listing = [asyncio.ensure_future(store.events(EventQuery())) for _ in range(READS_MAX + READS_WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(StoreOverloadedError):
            await store.events(EventQuery())
        blocker.rollback()
    await asyncio.gather(*listing)


async def test_too_many_revocations_are_refused_at_once(
    database: Database, plain: psycopg.Connection, ready_dsn: str
) -> None:
    revocations = Revocations(database, queue_max=2)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        under_way = asyncio.ensure_future(revocations.revoke(revocation(token_id=uuid4())))
        await waiting_for_locks(plain)
        waiting = [asyncio.ensure_future(revocations.revoke(revocation(token_id=uuid4()))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreOverloadedError):
            await revocations.revoke(revocation(token_id=uuid4()))
        blocker.commit()
    assert [one.count for one in await asyncio.gather(under_way, *waiting)] == [0, 0, 0]
    await revocations.close()
