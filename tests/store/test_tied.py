"""What is tied to a lineage dies with it, and with nothing less; nothing that is tied outlives a revocation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from tests.store.support import (
    changes,
    issues_held,
    live,
    new_token,
    read_one,
    revocation,
    rotated,
    rotation,
    stored,
    waiting_for_locks,
)
from watchword.token import format_token_id
from watchword_server.rules.tokens import Grant
from watchword_server.store.contract import Issued, IssuerGone, Rotated, Selector, TokenNotLive
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore

HOUR = timedelta(hours=1)
ORDERS_ONLY = Grant(("orders.*",), ("*",), ("orders",))


async def tied(store: PostgresStore, issuer: UUID, *args: str, **kwargs: object) -> UUID:
    """Stores a token that is tied to its issuer's lineage."""
    tied_to = (await read_one(store, issuer)).lineage
    return await stored(store, *args, issued_by=issuer, tied_to=tied_to, **kwargs)


async def test_what_is_tied_never_outlives_its_issuer_as_that_was(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    issuer = await stored(store, ends_in=2 * HOUR)
    plain.execute("update tokens set expires_at = now() + interval '1 hour'")
    end = (await read_one(store, issuer)).expires_at
    token = new_token(issued_by=issuer, tied_to=issuer, ends_in=2 * HOUR)
    issued = await store.issue(token)
    assert isinstance(issued, Issued)
    assert issued.expires_at == end == (await read_one(store, token.record.token_id)).expires_at
    sooner = new_token(issued_by=issuer, tied_to=issuer, ends_in=HOUR / 2)
    assert await store.issue(sooner) == Issued(
        (await read_one(store, sooner.record.token_id)).created_at, sooner.record.expires_at
    )


async def test_whatever_is_tied_ends_with_the_lineage_to_the_leaves_whatever_the_grants(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    root = await stored(store)
    child = await tied(store, root, "child", scopes=["billing.read"])
    leaf = await tied(store, child, "leaf", scopes=["billing.read"])
    untied = await stored(store, "untied", issued_by=root)
    revoked = await store.revoke(revocation(token_id=root, within=[ORDERS_ONLY]))
    assert (revoked.count, revoked.out_of_reach) == (3, 0)
    assert await live(store, root, child, leaf, untied) == {untied}
    assert changes(plain, revoked.position.number) == {root, child, leaf}
    [event] = await store.events(EventQuery(token_id=leaf, action="revoke"))
    assert (event.details["reason"], event.details["tied_to"]) == ("LEAKED", format_token_id(child))


async def test_what_is_tied_survives_the_rotation_of_its_issuer_and_the_end_of_the_old_one(
    store: PostgresStore,
) -> None:
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    successor = (await rotated(store, issuer)).successor.token_id
    late = await tied(store, issuer, "late")
    assert (await store.revoke(revocation(token_id=issuer))).count == 1
    assert await live(store, issuer, successor, child, late) == {successor, child, late}
    assert (await store.revoke(revocation(token_id=successor))).count == 3
    assert await live(store, successor, child, late) == set()


async def test_successors_of_what_is_tied_end_as_well(store: PostgresStore) -> None:
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    successor = (await rotated(store, child)).successor.token_id
    grandchild = await tied(store, successor, "grandchild")
    assert (await store.revoke(revocation(token_id=issuer))).count == 4
    assert await live(store, issuer, child, successor, grandchild) == set()


async def test_nothing_is_tied_to_a_lineage_that_ended(store: PostgresStore, plain: psycopg.Connection) -> None:
    """Nor to one of which an old token is still in its grace."""
    issuer = await stored(store)
    child = await read_one(store, await tied(store, issuer, "child"))
    successor = (await rotated(store, issuer)).successor.token_id
    await store.revoke(revocation(token_id=successor))
    assert await live(store, issuer, child.token_id) == {issuer}
    assert await store.issue(new_token(issued_by=issuer, tied_to=issuer)) == IssuerGone()
    assert isinstance(await store.issue(new_token(issued_by=issuer)), Issued)
    plain.execute("update tokens set revoked_at = null where id = %s", [child.token_id])
    assert await store.rotate(rotation(child)) == TokenNotLive()


async def test_a_tied_successor_ends_with_the_lineage_and_lives_on_with_it(store: PostgresStore) -> None:
    issuer = await stored(store, ends_in=2 * HOUR)
    child = await tied(store, issuer, "child")
    first = (await rotated(store, child, ends_in=9 * HOUR)).successor
    assert first.expires_at == (await read_one(store, issuer)).expires_at
    head = (await rotated(store, issuer, ends_in=7 * HOUR, grace=HOUR)).successor
    second = (await rotated(store, first.token_id, ends_in=9 * HOUR)).successor
    assert second.expires_at == head.expires_at


async def test_a_lost_successor_is_no_head(store: PostgresStore) -> None:
    """A repeated rotation revoked it; the lineage goes on with the one that stands in for it."""
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    for _ in range(4):
        head = (await rotated(store, issuer, request_id="once")).successor.token_id
        late = await tied(store, head, "late")
        child = (await rotated(store, child)).successor.token_id
    assert (await store.revoke(revocation(token_id=head))).count == 10
    assert await live(store, issuer, child, late) == {issuer}
    assert await store.issue(new_token(issued_by=issuer, tied_to=issuer)) == IssuerGone()


async def test_an_idle_head_is_no_head(store: PostgresStore, plain: psycopg.Connection) -> None:
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    plain.execute("update tokens set idle_expires_at = now() where id = %s", [issuer])
    assert await store.issue(new_token(issued_by=issuer, tied_to=issuer)) == IssuerGone()
    assert await store.rotate(rotation(await read_one(store, child))) == TokenNotLive()


@pytest.mark.parametrize("by", ["issuer", "old"])
async def test_an_issue_under_way_is_waited_for_and_what_it_tied_ends(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str, by: str
) -> None:
    """The Issue holds the head of the lineage until it commits, also where an old token of it issues."""
    issuer = head = await stored(store)
    if by == "old":
        head = (await rotated(store, issuer)).successor.token_id
    child = new_token("child", issued_by=issuer, tied_to=issuer)
    with issues_held(plain, ready_dsn) as blocker:
        issuing = asyncio.ensure_future(store.issue(child))
        await waiting_for_locks(plain)
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=head)))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    assert isinstance(await issuing, Issued)
    assert (await ending).count == 2
    assert await live(store, child.record.token_id) == set()


async def test_a_tied_token_that_is_just_being_rotated_ends_with_its_successor(
    store: PostgresStore, other: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    record = await read_one(store, child)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        rotating = asyncio.ensure_future(store.rotate(rotation(record)))
        await waiting_for_locks(plain)
        ending = asyncio.ensure_future(other.revoke(revocation(token_id=issuer)))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    outcome = await rotating
    assert isinstance(outcome, Rotated)
    assert (await ending).count == 3
    assert await live(store, child, outcome.successor.token_id) == set()


async def test_a_head_that_is_just_being_rotated_is_waited_for_and_its_successor_found(
    store: PostgresStore, other: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    issuer = await stored(store)
    child = await tied(store, issuer, "child")
    record, head = await read_one(store, child), await read_one(store, issuer)
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        first = asyncio.ensure_future(store.rotate(rotation(head, ends_in=5 * HOUR)))
        await waiting_for_locks(plain)
        second = asyncio.ensure_future(other.rotate(rotation(record)))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    one, two = await first, await second
    assert isinstance(one, Rotated)
    assert isinstance(two, Rotated)
    assert two.successor.expires_at == one.successor.expires_at


async def test_a_wide_revocation_takes_what_is_tied_and_was_issued_since(store: PostgresStore) -> None:
    issuer = await stored(store)
    instant = (await store.read([issuer])).now
    since, untied = await tied(store, issuer, "since"), await stored(store, "untied", issued_by=issuer)
    assert (await store.revoke(replace(revocation(), selector=Selector(issued_before=instant)))).count == 2
    assert await live(store, issuer, since, untied) == {untied}


async def test_a_ring_of_ties_ends(store: PostgresStore, plain: psycopg.Connection) -> None:
    """Issue makes none; whoever writes rows by hand could."""
    one = await stored(store)
    two = await tied(store, one)
    plain.execute("update tokens set tied_to = %s where id = %s", [two, one])
    assert (await store.revoke(revocation(token_id=one))).count == 2
    assert await live(store, one, two) == set()
