"""Rotate: one successor, an end for the old token, and no way around a revocation."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.store.support import (
    EVERYTHING,
    OPERATOR,
    changes,
    live,
    new_token,
    position,
    read_one,
    revocation,
    rotated,
    rotation,
    stored,
)
from watchword.token import format_token_id
from watchword_server.rules.tokens import TokenKind
from watchword_server.store.contract import (
    AlreadyRotated,
    IssuerGone,
    Narrowed,
    Narrowing,
    Rotated,
    TokenNotLive,
)
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore

HOUR = timedelta(hours=1)


async def test_a_successor_has_the_same_rights_and_the_lineage(store: PostgresStore) -> None:
    token = new_token(
        "ci",
        grants=[EVERYTHING],
        name="deployer",
        metadata={"team": "shop"},
        kind=TokenKind.PERSONAL,
        owner="ada",
        allowed_networks=("10.0.0.0/8", "2001:db8::/32"),
        certificate_sha256=bytes(range(32)),
        digest_scheme=2,
    )
    await store.issue(token)
    old = await read_one(store, token.record.token_id)
    outcome = await rotated(store, old.token_id, digest=b"d" * 32, pepper_version=2)
    successor = await read_one(store, outcome.successor.token_id)
    made = dict(old._asdict(), token_id=successor.token_id, digest=b"d" * 32, pepper_version=2)
    made |= {"expires_at": successor.expires_at, "created_at": successor.created_at}
    made |= {"lineage_id": old.token_id, "predecessor_id": old.token_id}
    assert successor._asdict() == made
    assert outcome.successor == successor
    again = await rotated(store, successor.token_id)
    assert (again.successor.lineage, again.successor.predecessor_id) == (old.token_id, successor.token_id)


async def test_the_old_token_ends_after_its_grace_at_a_position_that_names_it(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    token_id = await stored(store)
    before = await position(store)
    outcome = await rotated(store, token_id, grace=HOUR)
    old = await read_one(store, token_id)
    assert old == outcome.rotated
    assert old.rotated_at is not None
    assert old.expires_at == old.rotated_at + HOUR == outcome.successor.created_at + HOUR
    assert old.successor_id == outcome.successor.token_id
    assert outcome.position.number == before.number + 1
    assert changes(plain, outcome.position.number) == {token_id}
    [event] = await store.events(EventQuery(action="rotate"))
    assert (event.token_id, event.actor.subject) == (token_id, "caller")
    assert event.details == {
        "successor": format_token_id(outcome.successor.token_id),
        "expires_at": old.expires_at.isoformat(),
    }


async def test_grace_never_prolongs_and_none_ends_at_once(store: PostgresStore) -> None:
    one, two = await stored(store, ends_in=HOUR), await stored(store)
    end = (await read_one(store, one)).expires_at
    assert (await rotated(store, one, grace=2 * HOUR)).rotated.expires_at == end
    at_once = (await rotated(store, two, grace=timedelta())).rotated
    assert at_once.expires_at == at_once.rotated_at
    assert at_once.expires_at <= (await store.read([two])).now


@pytest.mark.parametrize("by", ["cascade", "issuer"])
async def test_what_a_token_rotated_of_others_goes_with_what_it_issued(store: PostgresStore, by: str) -> None:
    """Its holder has the secrets. Otherwise whoever stole an issuer's token would keep what it rotated."""
    thief, other = await stored(store, grants=[EVERYTHING]), await stored(store, "other")
    own = await stored(store, "own")
    taken = (await rotated(store, other, issuer=await read_one(store, thief))).successor.token_id
    onward = (await rotated(store, taken)).successor.token_id
    kept = (await rotated(store, own)).successor.token_id
    if by == "cascade":
        await store.revoke(revocation(token_id=thief, cascade=True))
    else:
        await store.revoke(revocation(issued_by=thief))
    assert await live(store, thief, other, taken, onward, own, kept) == {other, own, kept} | (
        set() if by == "cascade" else {thief}
    )


async def test_a_token_is_rotated_once(store: PostgresStore, plain: psycopg.Connection) -> None:
    token_id = await stored(store)
    first = await rotated(store, token_id, grace=timedelta())
    was = await position(store)
    outcome = await store.rotate(rotation(first.rotated))
    assert outcome == AlreadyRotated(first.successor.token_id)
    assert await position(store) == was
    assert plain.execute("select count(*) from tokens").fetchone() == (2,)


async def test_what_is_not_live_has_no_successor(store: PostgresStore, plain: psycopg.Connection) -> None:
    revoked, expired, idle = [await stored(store) for _ in range(3)]
    await store.revoke(revocation(token_id=revoked))
    plain.execute("update tokens set expires_at = now() where id = %s", [expired])
    plain.execute("update tokens set idle_seconds = 1, kind = 1, idle_expires_at = now() where id = %s", [idle])
    for token_id in (revoked, expired, idle):
        assert await store.rotate(rotation(await read_one(store, token_id))) == TokenNotLive()
    unknown = new_token().record
    assert await store.rotate(rotation(unknown)) == TokenNotLive()


@pytest.mark.parametrize("left", [timedelta(0), timedelta(minutes=5)])
async def test_a_session_is_rotated_until_it_is_idle(
    store: PostgresStore, plain: psycopg.Connection, left: timedelta
) -> None:
    token_id = await stored(store, kind=TokenKind.SESSION, idle_timeout=HOUR)
    plain.execute("update tokens set idle_expires_at = now() + %s where id = %s", [left, token_id])
    outcome = await store.rotate(rotation(await read_one(store, token_id)))
    assert isinstance(outcome, Rotated if left else TokenNotLive)


async def test_a_sessions_hard_end_never_moves_later(store: PostgresStore) -> None:
    token_id = await stored(store, kind=TokenKind.SESSION, idle_timeout=HOUR, ends_in=3 * HOUR)
    end = (await read_one(store, token_id)).expires_at
    outcome = await rotated(store, token_id, ends_in=5 * HOUR, grace=timedelta(), request_id="once")
    assert outcome.successor.expires_at == end
    again = await rotated(store, token_id, ends_in=5 * HOUR, request_id="once")
    assert (again.successor.expires_at, again.successor.predecessor_id) == (end, token_id)


async def test_life_that_was_taken_away_is_not_won_back(store: PostgresStore) -> None:
    """Also if it was taken after whoever rotates had read it, and not by the successor's successor either."""
    token_id = await stored(store)
    record = await read_one(store, token_id)
    narrowing = Narrowing(token_id, (), HOUR, OPERATOR, "too long", (EVERYTHING,))
    narrowed = await store.narrow(narrowing)
    assert isinstance(narrowed, Narrowed)
    outcome = await store.rotate(rotation(record, ends_in=timedelta(days=9)))
    assert isinstance(outcome, Rotated)
    assert outcome.successor.expires_at == narrowed.record.expires_at
    again = await rotated(store, outcome.successor.token_id, ends_in=timedelta(days=9))
    assert again.successor.expires_at == narrowed.record.expires_at


async def test_a_narrowed_token_has_a_narrowed_successor(store: PostgresStore, plain: psycopg.Connection) -> None:
    """Also if it was narrowed after whoever rotates had read it."""
    token_id = await stored(store, scopes=["orders.read", "orders.write"])
    record = await read_one(store, token_id)
    plain.execute("update tokens set scopes = '{orders.read}'")
    outcome = await store.rotate(rotation(record))
    assert isinstance(outcome, Rotated)
    assert list(outcome.successor.scopes) == ["orders.read"]
    assert await read_one(store, outcome.successor.token_id) == outcome.successor


async def test_an_issuer_that_is_gone_rotates_nothing(store: PostgresStore) -> None:
    issuer, token_id = await stored(store, "issuer"), await stored(store)
    by_issuer = rotation(await read_one(store, token_id), issuer=await read_one(store, issuer))
    await store.revoke(revocation(token_id=issuer))
    assert await store.rotate(by_issuer) == IssuerGone()
    assert (await read_one(store, token_id)).successor_id is None


async def test_a_retry_ends_the_successor_that_was_lost(store: PostgresStore, plain: psycopg.Connection) -> None:
    token_id, issuer = await stored(store), await stored(store, "issuer")
    by = await read_one(store, issuer)
    first = await rotated(store, token_id, issuer=by, request_id="once", grace=HOUR)
    second = await rotated(store, token_id, issuer=by, request_id="once", grace=2 * HOUR)
    lost = await read_one(store, first.successor.token_id)
    assert lost.revoke_reason == "SUPERSEDED"
    old = await read_one(store, token_id)
    assert old == second.rotated
    assert old.successor_id == second.successor.token_id
    assert (old.rotated_at, old.expires_at) == (first.rotated.rotated_at, first.rotated.expires_at)
    assert (second.successor.lineage, second.successor.predecessor_id) == (token_id, token_id)
    assert changes(plain, second.position.number) == {token_id, lost.token_id}
    [event] = await store.events(EventQuery(action="revoke"))
    assert (event.token_id, event.details["reason"]) == (lost.token_id, "SUPERSEDED")
    third = await rotated(store, token_id, issuer=by, request_id="once")
    assert await live(store, first.successor.token_id, second.successor.token_id, third.successor.token_id) == {
        third.successor.token_id
    }


async def test_a_retry_by_another_or_with_another_id_is_too_late(store: PostgresStore) -> None:
    token_id, issuer, other = [await stored(store, subject) for subject in ("mine", "issuer", "other")]
    by, by_other = await read_one(store, issuer), await read_one(store, other)
    first = await rotated(store, token_id, issuer=by, request_id="once")
    old = first.rotated
    for again in (
        rotation(old, issuer=by_other, request_id="once"),
        rotation(old, issuer=by, request_id="twice"),
        rotation(old, issuer=by),
    ):
        assert await store.rotate(again) == AlreadyRotated(first.successor.token_id)


@pytest.mark.parametrize(("attempt", "replaces"), [(6, False), (7, False), (8, True), (0, True)])
async def test_an_attempt_that_was_held_up_replaces_nothing(store: PostgresStore, attempt: int, replaces: bool) -> None:
    """It arrives after a later one was answered, and that one's successor is in use."""
    token_id = await stored(store)
    first = await rotated(store, token_id, request_id="once", attempt=7)
    outcome = await store.rotate(rotation(first.rotated, request_id="once", attempt=attempt))
    if replaces:
        assert isinstance(outcome, Rotated)
    else:
        assert outcome == AlreadyRotated(first.successor.token_id)
        assert await live(store, first.successor.token_id) == {first.successor.token_id}


async def test_a_successor_that_was_rotated_itself_was_not_lost(store: PostgresStore) -> None:
    token_id = await stored(store)
    first = await rotated(store, token_id, request_id="once")
    await rotated(store, first.successor.token_id)
    again = await store.rotate(rotation(first.rotated, request_id="once"))
    assert again == AlreadyRotated(first.successor.token_id)


@pytest.mark.parametrize("ended", ["old", "successor"])
async def test_a_retry_wins_nothing_back_that_was_revoked(store: PostgresStore, ended: str) -> None:
    token_id = await stored(store)
    first = await rotated(store, token_id, request_id="once")
    successor_id = first.successor.token_id
    await store.revoke(revocation(token_id=token_id if ended == "old" else successor_id))
    outcome = await store.rotate(rotation(first.rotated, request_id="once"))
    assert outcome == (TokenNotLive() if ended == "old" else AlreadyRotated(successor_id))


@pytest.mark.parametrize(("age", "retried"), [("23:59:59", True), ("24:00:01", False)])
async def test_a_retry_is_one_for_a_day(
    store: PostgresStore, plain: psycopg.Connection, age: str, retried: bool
) -> None:
    token_id = await stored(store)
    first = await rotated(store, token_id, request_id="once")
    plain.execute("update issue_requests set created_at = now() - %s::interval", [age])
    outcome = await store.rotate(rotation(first.rotated, request_id="once"))
    assert isinstance(outcome, Rotated if retried else AlreadyRotated)


async def test_an_issues_request_id_and_a_rotations_are_two(store: PostgresStore) -> None:
    token_id = await stored(store)
    await rotated(store, token_id, request_id="once")
    assert (await stored(store, request_id="once", caller="caller")) is not None
    assert await live(store, token_id) == {token_id}
