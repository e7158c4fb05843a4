"""Concurrent Issues share a commit; each is stored with its audit event and its request id, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import asyncpg
import psycopg
import pytest

from tests.store.support import (
    WAIT_SECONDS_MAX,
    Counted,
    counted_rows,
    live,
    new_token,
    revocation,
    stored,
    waiting_for_locks,
)
from watchword_server.store.contract import (
    Issued,
    NewToken,
    PartitionMissingError,
    RequestIdUsed,
    RowRefusedError,
    StoreUnavailableError,
)
from watchword_server.store.database import Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.postgres import PostgresStore


async def test_concurrent_issues_share_a_commit(counted: Counted, plain: psycopg.Connection) -> None:
    outcomes = await asyncio.gather(*(counted.store.issue(new_token(f"s{n}")) for n in range(200)))
    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    assert counted.issues == [200]
    assert counted.statements == ["issue"]
    row = plain.execute("select count(distinct xmin::text), count(*) from tokens").fetchone()
    assert row == (1, 200)


async def test_every_issue_is_recorded_with_who_did_it(store: PostgresStore) -> None:
    issuer = await stored(store, "ci")
    token = new_token("deploy", issued_by=issuer, caller="ci")
    await store.issue(token)
    (event,) = await store.events(EventQuery(token_id=token.record.token_id))
    assert (event.action, event.actor.subject, event.actor.token_id) == ("issue", "ci", issuer)
    assert event.details == {"subject": "deploy", "scopes": "orders.read"}


def refused_rows() -> list[NewToken]:
    """Tokens that the database will not have, each for another reason."""
    token = new_token()
    return [
        new_token(expires_at=datetime.now(UTC) + timedelta(days=4000)),
        new_token("nul\x00subject"),
        new_token(name="nul\x00name"),
        dataclasses.replace(token, record=token.record._replace(metadata={"key": "nul\x00"})),
        new_token(name="lone surrogate \ud800"),
        new_token(pepper_version=70_000),
    ]


@pytest.mark.parametrize("bad", refused_rows(), ids=lambda token: "bad")
async def test_bad_row_fails_alone(store: PostgresStore, plain: psycopg.Connection, bad: NewToken) -> None:
    good = [new_token() for _ in range(5)]
    outcomes = await asyncio.gather(
        *(store.issue(token) for token in [*good[:2], bad, *good[2:]]), return_exceptions=True
    )
    assert isinstance(outcomes.pop(2), RowRefusedError)
    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    assert counted_rows(plain) == (5, 5, 0)


async def test_token_id_is_stored_once(store: PostgresStore) -> None:
    token = new_token()
    await store.issue(token)
    with pytest.raises(RowRefusedError):
        await store.issue(token)


async def test_refused_row_leaves_its_request_id_unused(store: PostgresStore) -> None:
    with pytest.raises(RowRefusedError):
        await store.issue(new_token(expires_at=datetime.now(UTC) + timedelta(days=4000), request_id="once"))
    assert isinstance(await store.issue(new_token(request_id="once")), Issued)


async def test_request_id_stores_one_token_however_often_it_is_sent_at_once(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    tokens = [new_token(request_id="once") for _ in range(8)]
    outcomes = await asyncio.gather(*(store.issue(token) for token in tokens))
    won = [
        token.record.token_id for token, outcome in zip(tokens, outcomes, strict=True) if isinstance(outcome, Issued)
    ]
    assert len(won) == 1
    assert [o for o in outcomes if not isinstance(o, Issued)] == [RequestIdUsed(won[0])] * 7
    assert counted_rows(plain) == (1, 1, 1)


async def test_request_id_names_the_token_of_the_first_call(store: PostgresStore) -> None:
    first = new_token(request_id="once")
    await store.issue(first)
    assert await store.issue(new_token(request_id="once")) == RequestIdUsed(first.record.token_id)


async def test_used_request_id_does_not_hold_up_its_batch(ready_dsn: str) -> None:
    """Nor does a pool whose connections are all taken."""
    database = await Database.open(ready_dsn, pool_size_max=1)
    store = PostgresStore(database)
    first = new_token(request_id="once")
    await store.issue(first)
    async with database.connection(), asyncio.timeout(WAIT_SECONDS_MAX):
        outcomes = await asyncio.gather(*(store.issue(one) for one in (new_token(), new_token(request_id="once"))))
    assert isinstance(outcomes[0], Issued)
    assert outcomes[1] == RequestIdUsed(first.record.token_id)
    await store.close()
    await database.close()


async def test_connection_lost_half_way_through_a_batch_fails_only_what_was_not_stored(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    """Two with one request id are stored in turn. The second one's connection dies; the first one's answer stands."""
    plain.execute(
        "create function die() returns trigger language plpgsql as "
        "$$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"
    )
    plain.execute(
        "create trigger die before insert on tokens for each row when (new.subject = 'b') execute function die()"
    )
    first, second = new_token("a", request_id="once"), new_token("b", request_id="once")
    # An id that is forgotten at once, so that the second one is stored and not refused.
    plain.execute(
        "create function forget() returns trigger language plpgsql as "
        "$$ begin new.created_at := now() - interval '25 hours'; return new; end $$"
    )
    plain.execute("create trigger forget before insert on issue_requests for each row execute function forget()")
    outcomes = await asyncio.gather(store.issue(first), store.issue(second), return_exceptions=True)
    assert isinstance(outcomes[0], Issued)
    assert isinstance(outcomes[1], StoreUnavailableError)
    assert await live(store, first.record.token_id, second.record.token_id) == {first.record.token_id}


async def test_request_id_of_another_caller_is_another(store: PostgresStore) -> None:
    outcomes = await asyncio.gather(
        *(store.issue(new_token(request_id="once", caller=caller)) for caller in ("a", "b")),
        *(store.issue(new_token(request_id=request_id, caller="a")) for request_id in ("twice", "Once")),
    )
    assert all(isinstance(outcome, Issued) for outcome in outcomes)


async def test_request_id_is_contested_between_two_servers(ready_dsn: str, plain: psycopg.Connection) -> None:
    """Two processes with the same request id at the same moment: one token."""
    databases = [await Database.open(ready_dsn, pool_size_max=4) for _ in range(2)]
    stores = [PostgresStore(database) for database in databases]
    for round_number in range(10):
        tokens = [new_token(request_id=f"r{round_number}") for _ in stores]
        outcomes = await asyncio.gather(*(one.issue(token) for one, token in zip(stores, tokens, strict=True)))
        won = [t.record.token_id for t, o in zip(tokens, outcomes, strict=True) if isinstance(o, Issued)]
        assert len(won) == 1
        assert RequestIdUsed(won[0]) in outcomes
    assert counted_rows(plain) == (10, 10, 10)
    for one, database in zip(stores, databases, strict=True):
        await one.close()
        await database.close()


@pytest.mark.parametrize(("age", "used"), [("23:59:59", True), ("24:00:01", False)])
async def test_request_id_is_remembered_for_a_day(
    store: PostgresStore, plain: psycopg.Connection, age: str, used: bool
) -> None:
    first = new_token(request_id="once")
    await store.issue(first)
    plain.execute("update issue_requests set created_at = now() - %s::interval", [age])
    outcome = await store.issue(new_token(request_id="once"))
    assert isinstance(outcome, RequestIdUsed if used else Issued)


async def test_issue_given_up_by_its_caller_is_stored_all_the_same(
    store: PostgresStore, plain: psycopg.Connection, ready_dsn: str
) -> None:
    """Never half done: the transaction runs to its end, and request_id tells the caller that it did."""
    token = new_token(request_id="once")
    with psycopg.connect(ready_dsn) as blocker:
        blocker.execute("lock table tokens in exclusive mode")
        issuing = asyncio.ensure_future(store.issue(token))
        await waiting_for_locks(plain)
        issuing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await issuing
        blocker.commit()
    await store.close()
    assert counted_rows(plain) == (1, 1, 1)


async def test_deadlock_is_done_again(store: PostgresStore, ready_dsn: str, plain: psycopg.Connection) -> None:
    """Postgres ends one of two that wait for each other. If that is ours, nobody hears of it."""
    first, second = await stored(store), await stored(store)
    with psycopg.connect(ready_dsn) as rival:
        # The rival waits long enough that it is our transaction which notices the deadlock and is ended.
        rival.execute("set deadlock_timeout = '60s'")
        rival.execute("select from tokens where id = %s for update", [max(first, second)])
        ending = asyncio.ensure_future(store.revoke(revocation(subject="caller")))
        await waiting_for_locks(plain)
        mark = "update tokens set name = 'rival' where id = %s"
        await asyncio.to_thread(rival.execute, mark, [min(first, second)])
        rival.commit()
    assert (await ending).count == 2
    assert await live(store, first, second) == set()


async def test_serialization_failure_is_done_again_and_only_so_often(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    plain.execute("create sequence failures")
    plain.execute(
        "create function fail() returns trigger language plpgsql as $$ begin "
        "if nextval('failures') <= 4 then raise exception 'try again' using errcode = '40001'; end if; return new; "
        "end $$"
    )
    plain.execute("create trigger fail before insert on audit_events for each row execute function fail()")
    assert isinstance(await store.issue(new_token()), Issued)
    plain.execute("select setval('failures', 1, false)")
    plain.execute(
        "create or replace function fail() returns trigger language plpgsql as "
        "$$ begin raise exception 'for ever' using errcode = '40001'; end $$"
    )
    with pytest.raises(StoreUnavailableError) as caught:
        await store.issue(new_token())
    assert isinstance(caught.value.__cause__, asyncpg.SerializationError)
    assert counted_rows(plain) == (1, 1, 0)


async def test_missing_partition_is_not_the_callers_fault(store: PostgresStore) -> None:
    """It is an operator's task, so it must not come out as a bad request."""
    with pytest.raises(PartitionMissingError):
        await store.issue(new_token(expires_at=datetime.now(UTC) + timedelta(days=4000)))
