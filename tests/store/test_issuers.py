"""An issuer and its revocation: whichever comes first, no live token is left behind a revoked one."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from tests.store.support import counted_rows, issues_held, live, new_token, revocation, stored, until, waiting_for_locks
from watchword_server.store.contract import Issued, IssuerGone, NewToken, StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.issues import Issues
from watchword_server.store.postgres import PostgresStore


async def test_revoked_issuer_issues_nothing(store: PostgresStore, plain: psycopg.Connection) -> None:
    issuer = await stored(store)
    await store.revoke(revocation(token_id=issuer))
    child = new_token(issued_by=issuer, request_id="once")
    assert await store.issue(child) == IssuerGone()
    assert counted_rows(plain) == (1, 2, 0)


async def test_expired_issuer_issues_nothing(store: PostgresStore, plain: psycopg.Connection) -> None:
    issuer = await stored(store)
    plain.execute("update tokens set expires_at = now() where id = %s", [issuer])
    assert await store.issue(new_token(issued_by=issuer)) == IssuerGone()


async def test_issuer_that_never_was_issues_nothing(store: PostgresStore) -> None:
    assert await store.issue(new_token(issued_by=uuid4())) == IssuerGone()


async def test_gone_issuer_does_not_disturb_others_in_its_commit(store: PostgresStore) -> None:
    good, gone = await stored(store), await stored(store)
    await store.revoke(revocation(token_id=gone))
    outcomes = await asyncio.gather(*(store.issue(new_token(issued_by=issuer)) for issuer in (good, gone, good, gone)))
    assert [type(outcome) for outcome in outcomes] == [Issued, IssuerGone, Issued, IssuerGone]


async def test_revoked_issuer_never_slips_one_in(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """The revocation came first and is not committed yet: Issue waits for it, and then sees it."""
    issuer = await stored(store)
    child = new_token(issued_by=issuer)
    with psycopg.connect(ready_dsn) as revoker:
        revoker.execute("update tokens set revoked_at = now() where id = %s", [issuer])
        issuing = asyncio.ensure_future(store.issue(child))
        await waiting_for_locks(plain)
        assert not issuing.done()
        revoker.commit()
    assert await issuing == IssuerGone()
    assert await live(store, child.record.token_id) == set()


async def test_an_issuer_locked_for_long_does_not_hold_up_everybody(
    store: PostgresStore, database: Database, ready_dsn: str
) -> None:
    issuer = await stored(store)
    issues = Issues(database, lock_timeout_seconds=0.05, observe=lambda size: None, count=lambda statement: None)
    child = new_token(issued_by=issuer)
    with psycopg.connect(ready_dsn) as revoker:
        revoker.execute("update tokens set revoked_at = now() where id = %s", [issuer])
        with pytest.raises(StoreUnavailableError):
            await issues.issue(child)
        assert isinstance(await issues.issue(new_token()), Issued)
        revoker.rollback()
    assert await live(store, child.record.token_id) == set()
    await issues.close()


async def test_revocation_given_up_lets_the_waiting_issue_through(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    issuer = await stored(store)
    with psycopg.connect(ready_dsn) as revoker:
        revoker.execute("update tokens set revoked_at = now() where id = %s", [issuer])
        issuing = asyncio.ensure_future(store.issue(new_token(issued_by=issuer)))
        await waiting_for_locks(plain)
        revoker.rollback()
    assert isinstance(await issuing, Issued)


async def test_cascade_waits_for_an_issue_under_way_and_ends_its_token(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """The other order: Issue holds its issuer's row until it commits, and the revocation then finds what it stored."""
    issuer = await stored(store)
    child = new_token(issued_by=issuer)
    with issues_held(plain, ready_dsn) as blocker:
        # Its issuer was found live and locked; its event, the last thing it writes, is not written yet.
        issuing = asyncio.ensure_future(store.issue(child))
        await waiting_for_locks(plain)
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=issuer, cascade=True)))
        await waiting_for_locks(plain, 2)
        blocker.commit()
    assert isinstance(await issuing, Issued)
    assert (await ending).count == 2
    assert await live(store, issuer, child.record.token_id) == set()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_cascade_misses_nothing_whatever_isolation_the_database_prefers(
    ready_dsn: str, plain: psycopg.Connection, isolation: str
) -> None:
    name = plain.info.dbname
    plain.execute(f"alter database \"{name}\" set default_transaction_isolation = '{isolation}'")
    database = await Database.open(ready_dsn, pool_size_max=2)
    store = PostgresStore(database)
    issuer = await stored(store)
    child = new_token(issued_by=issuer)
    with psycopg.connect(ready_dsn) as issuing:
        # An Issue that holds its issuer's row, as another server's does.
        issuing.execute("select 1 from tokens where id = %s for share", [issuer])
        ending = asyncio.ensure_future(store.revoke(revocation(token_id=issuer, cascade=True)))
        await waiting_for_locks(plain)
        issuing.execute(
            "insert into tokens (id, created_at, expires_at, issued_by, pepper_version, digest, subject, audiences,"
            " scopes) select %s, created_at, expires_at, id, 1, digest, subject, audiences, scopes from tokens"
            " where id = %s",
            [child.record.token_id, issuer],
        )
        issuing.commit()
    assert (await ending).count == 2
    assert await live(store, issuer, child.record.token_id) == set()
    await store.close()
    await database.close()


async def test_cascade_against_issue_leaves_no_live_child(ready_dsn: str, store: PostgresStore) -> None:
    """Two servers, one that issues as fast as it can and one that ends the issuer's tree at some moment."""
    other_database = await Database.open(ready_dsn, pool_size_max=4)
    other = PostgresStore(other_database)
    for round_number in range(15):
        root = await stored(store)
        issuer = await stored(store, issued_by=root)
        children: list[NewToken] = []
        outcomes: list[object] = []

        async def issue(issuer=issuer, children=children, outcomes=outcomes) -> None:  # type: ignore[no-untyped-def]
            while not any(isinstance(outcome, IssuerGone) for outcome in outcomes):
                batch = [new_token(issued_by=issuer) for _ in range(3)]
                children += batch
                outcomes += await asyncio.gather(*(store.issue(token) for token in batch))

        issuers = [asyncio.ensure_future(issue()) for _ in range(3)]
        await until(lambda outcomes=outcomes, least=round_number: _longer(outcomes, least))  # type: ignore[misc]
        await other.revoke(revocation(token_id=root, cascade=True))
        await asyncio.gather(*issuers)
        ids = [child.record.token_id for child in children]
        rows = (await store.read(ids)).rows
        assert len(rows) == sum(isinstance(outcome, Issued) for outcome in outcomes)
        assert await live(store, *ids) == set()
    await other.close()
    await other_database.close()


async def _longer(outcomes: list[object], least: int) -> bool:
    return len(outcomes) > least
