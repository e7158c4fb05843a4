"""A blocked subject has no live token and gets none, whatever was under way."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.store.support import (
    EVERYTHING,
    OPERATOR,
    issues_held,
    live,
    new_token,
    read_one,
    revocation,
    rotation,
    stored,
    until,
    waiting_for_locks,
)
from watchword_server.rules.tokens import TokenKind
from watchword_server.store.contract import Issued, LastAdministratorError, Rotated, SubjectBlocked, TokenNotLive
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore


async def test_a_blocked_subject_and_what_it_owns_end_and_nothing_more_is_issued(store: PostgresStore) -> None:
    own, owned = await stored(store, "ada"), await stored(store, "laptop", owner="ada", kind=TokenKind.PERSONAL)
    other = await stored(store, "bob")
    blocked = await store.revoke(revocation(subject="ada", block=True))
    assert blocked.count == 2
    assert await live(store, own, owned, other) == {other}
    outcomes = await asyncio.gather(
        *(
            store.issue(token)
            for token in (
                new_token("ada"),
                new_token("laptop", owner="ada"),
                new_token("bob"),
                new_token("ada", request_id="once"),
            )
        )
    )
    assert [outcomes[at] for at in (0, 1, 3)] == [SubjectBlocked("ada")] * 3
    assert isinstance(outcomes[2], Issued)


async def test_nothing_of_a_blocked_subject_is_rotated(store: PostgresStore, plain: psycopg.Connection) -> None:
    """Also where a token was left alive, out of reach of who blocked."""
    token_id, owned = await stored(store, "ada"), await stored(store, "laptop", owner="ada")
    await store.revoke(revocation(subject="ada", block=True, within=[]))
    assert await live(store, token_id, owned) == {token_id, owned}
    for one in (token_id, owned):
        assert await store.rotate(rotation(await read_one(store, one))) == SubjectBlocked("ada")


async def test_a_block_is_listed_recorded_and_taken_back(store: PostgresStore) -> None:
    for subject in ("bob", "ada"):
        await store.revoke(revocation(subject=subject, block=True))
    await store.revoke(revocation(subject="ada", block=True))
    first, second = await store.blocked(limit=10, after="")
    assert (first.subject, first.reason, first.blocked_by, second.subject) == ("ada", "LEAKED", "operator", "bob")
    assert [one.subject for one in await store.blocked(limit=1, after="ada")] == ["bob"]
    assert await store.unblock("ada", OPERATOR)
    assert not await store.unblock("ada", OPERATOR)
    assert isinstance(await store.issue(new_token("ada")), Issued)
    assert [one.subject for one in await store.blocked(limit=10, after="")] == ["bob"]
    blocks = await store.events(EventQuery(action="block_subject"))
    assert [event.details["subject"] for event in blocks] == ["ada", "ada", "bob"]
    unblocks = await store.events(EventQuery(action="unblock_subject"))
    assert [event.details for event in unblocks] == [
        {"subject": "ada", "was_blocked": "false"},
        {"subject": "ada", "was_blocked": "true"},
    ]


async def test_issue_never_slips_a_token_past_a_block(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """The block came first and is not committed yet: the Issue waits for it, and then sees it."""
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        await stored(store, "ada")
        blocking = asyncio.ensure_future(store.revoke(revocation(subject="ada", block=True)))
        await waiting_for_locks(plain)
        issuing = asyncio.ensure_future(store.issue(new_token("ada")))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    await blocking
    assert await issuing == SubjectBlocked("ada")


async def test_a_block_waits_for_an_issue_under_way_and_ends_its_token(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    token = new_token("ada")
    with issues_held(plain, ready_dsn) as blocker:
        issuing = asyncio.ensure_future(store.issue(token))
        await waiting_for_locks(plain)
        blocking = asyncio.ensure_future(store.revoke(revocation(subject="ada", block=True)))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    assert isinstance(await issuing, Issued)
    assert (await blocking).count == 1
    assert await live(store, token.record.token_id) == set()


async def test_a_block_waits_for_a_rotation_under_way_and_ends_its_successor(
    store: PostgresStore, other: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    record = await read_one(store, await stored(store, "ada"))
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("select from feed for update")
        rotating = asyncio.ensure_future(store.rotate(rotation(record)))
        await waiting_for_locks(plain)
        blocking = asyncio.ensure_future(other.revoke(revocation(subject="ada", block=True)))
        await waiting_for_locks(plain, 2)
        late = asyncio.ensure_future(other.rotate(rotation(record)))
        await waiting_for_locks(plain, 3)
        blocker.commit()
    outcome = await rotating
    assert isinstance(outcome, Rotated)
    assert (await blocking).count == 2
    assert await late == SubjectBlocked("ada")
    assert await live(store, record.token_id, outcome.successor.token_id) == set()


async def test_blocks_against_issues_and_rotations_leave_no_live_token(
    store: PostgresStore, other: PostgresStore
) -> None:
    """Two servers, one that issues and rotates as fast as it can, and one that blocks at some moment."""
    for round_number in range(8):
        subject = f"subject{round_number}"
        made = [await stored(store, subject)]
        blocked: list[bool] = []

        async def issue(subject=subject, made=made, blocked=blocked) -> None:  # type: ignore[no-untyped-def]
            while not blocked:
                token = new_token(subject)
                outcome = await store.issue(token)
                if isinstance(outcome, Issued):
                    made.append(token.record.token_id)
                else:
                    assert outcome == SubjectBlocked(subject)
                    blocked.append(True)

        async def rotate(made=made, blocked=blocked) -> None:  # type: ignore[no-untyped-def]
            record = await read_one(store, made[0])
            while not blocked:
                outcome = await store.rotate(rotation(record))
                if isinstance(outcome, Rotated):
                    record = outcome.successor
                    made.append(record.token_id)
                else:
                    assert isinstance(outcome, SubjectBlocked | TokenNotLive)
                    return

        working = [asyncio.ensure_future(work()) for work in (issue, issue, rotate)]
        await until(lambda made=made, least=3 + round_number: _longer(made, least))  # type: ignore[misc]
        await other.revoke(revocation(subject=subject, block=True))
        ended = await live(other, *made)
        assert ended == set()
        await asyncio.gather(*working)
        assert await live(store, *made) == set()


async def _longer(made: list[object], least: int) -> bool:
    return len(made) >= least


@pytest.mark.parametrize("force", [True, False])
async def test_a_block_that_is_refused_blocks_nobody(store: PostgresStore, force: bool) -> None:
    admin = await stored(store, "ada", scopes=["watchword.*"], audiences=["watchword"], grants=[EVERYTHING])
    blocking = revocation(subject="ada", block=True, force=force)
    if force:
        await store.revoke(blocking)
    else:
        with pytest.raises(LastAdministratorError):
            await store.revoke(blocking)
    assert await live(store, admin) == (set() if force else {admin})
    assert [one.subject for one in await store.blocked(limit=10, after="")] == (["ada"] if force else [])
