"""Tokens to store, and what a test needs to see of a store at work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from watchword.token import new_token_id
from watchword_server.rules.tokens import Grant, TokenRecord
from watchword_server.store.contract import (
    Actor,
    NewToken,
    Position,
    Revocation,
    Rotated,
    Rotation,
    Selector,
)
from watchword_server.store.database import Database
from watchword_server.store.postgres import PostgresStore

TTL_MAX = timedelta(days=40)
DAYS = 30
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
EVERYTHING = Grant(("*", "watchword.*"), ("*",), ("*", "watchword"))
OPERATOR = Actor("operator", None, "test")
WAIT_SECONDS_MAX = 20

T = TypeVar("T")


class Counted:
    """A store whose statements and batch sizes are written down."""

    def __init__(self, database: Database) -> None:
        self.statements: list[str] = []
        self.lookups: list[int] = []
        self.issues: list[int] = []
        self.store = PostgresStore(
            database,
            observe_lookups=self.lookups.append,
            observe_issues=self.issues.append,
            count_statement=self.statements.append,
        )


def new_token(
    subject: str = "caller",
    *,
    issued_by: UUID | None = None,
    ends_in: timedelta = timedelta(days=1),
    expires_at: datetime | None = None,
    audiences: Sequence[str] = ("orders",),
    scopes: Sequence[str] = ("orders.read",),
    grants: Sequence[Grant] = (),
    name: str = "",
    request_id: str = "",
    caller: str = "operator",
    pepper_version: int = 1,
    **fields: Any,
) -> NewToken:
    """A token about to be stored. Its digest is made up: the store never looks into one. `fields`: any others."""
    ends_at = expires_at or datetime.now(UTC) + ends_in
    ends_at_ms = (ends_at - EPOCH) // MILLISECOND
    token_id = new_token_id(ends_at_ms)
    record = TokenRecord(
        token_id=token_id,
        pepper_version=pepper_version,
        digest=token_id.bytes * 2,
        subject=subject,
        audiences=tuple(audiences),
        scopes=tuple(scopes),
        grants=tuple(grants),
        created_at=datetime.now(UTC),
        expires_at=EPOCH + ends_at_ms * MILLISECOND,
        issued_by=issued_by,
        name=name,
    )._replace(**fields)
    return NewToken(record, Actor(caller, issued_by, "test"), request_id)


def revocation(
    *,
    token_id: UUID | None = None,
    subject: str | None = None,
    issued_by: UUID | None = None,
    cascade: bool = False,
    within: Sequence[Grant] = (EVERYTHING,),
    proved: bool | None = None,
    force: bool = False,
    block: bool = False,
) -> Revocation:
    """A revocation by an operator who may end everything."""
    selector = Selector(token_id=token_id, subject=subject, issued_by=issued_by)
    return Revocation(selector, OPERATOR, "LEAKED", cascade, within, proved, force, block)


def rotation(
    rotated: TokenRecord,
    *,
    issuer: TokenRecord | None = None,
    grace: timedelta = timedelta(hours=1),
    request_id: str = "",
    attempt: int = 0,
    ends_in: timedelta = timedelta(days=1),
    **fields: Any,
) -> Rotation:
    """A rotation by the token's own holder, or by an issuer. `fields`: of the successor."""
    made = new_token(ends_in=ends_in).record
    successor = rotated._replace(
        token_id=made.token_id,
        digest=made.digest,
        expires_at=made.expires_at,
        lineage_id=rotated.lineage,
        predecessor_id=rotated.token_id,
    )._replace(**fields)
    holder = issuer or rotated
    actor = Actor(holder.subject, holder.token_id, "test")
    return Rotation(rotated.token_id, successor, grace, actor, issuer is not None, request_id, attempt)


async def rotated(store: PostgresStore, token_id: UUID, **kwargs: Any) -> Rotated:
    """Rotates a token."""
    outcome = await store.rotate(rotation(await read_one(store, token_id), **kwargs))
    assert isinstance(outcome, Rotated)
    return outcome


async def read_one(store: PostgresStore, token_id: UUID) -> TokenRecord:
    """A token as it is now."""
    return (await store.read([token_id])).rows[token_id]


async def stored(store: PostgresStore, *args: str, **kwargs: object) -> UUID:
    """Stores a new token; its id."""
    token = new_token(*args, **kwargs)  # type: ignore[arg-type]  # new_token says what there is
    await store.issue(token)
    return token.record.token_id


async def live(store: PostgresStore, *token_ids: UUID) -> set[UUID]:
    """Those of the tokens that exist and are not revoked."""
    rows = (await store.read(token_ids)).rows
    return {token_id for token_id in token_ids if token_id in rows and rows[token_id].revoked_at is None}


async def position(store: PostgresStore) -> Position:
    """Where the store's revocations stand."""
    return (await store.read([UUID(int=0)])).position


async def until(condition: Callable[[], Awaitable[T | None]]) -> T:
    """Asks again and again, each time with a trip to the database, until there is an answer."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while True:
            if answer := await condition():
                return answer
            await asyncio.sleep(0)


async def waiting_for_locks(connection: psycopg.Connection, count: int = 1) -> None:
    """Waits until `count` backends of this database wait for a lock."""

    async def enough() -> bool:
        row = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).fetchone()
        return row is not None and row[0] >= count

    await until(enough)


@contextmanager
def issues_held(plain: psycopg.Connection, dsn: str) -> Iterator[psycopg.Connection]:
    """Issues get as far as their last write, the audit event, and wait there until the connection commits."""
    plain.execute(
        "create function hold() returns trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock(1); return new; end $$"
    )
    plain.execute(
        "create trigger hold before insert on audit_events for each row when (new.action in ('issue', 'bootstrap')) "
        "execute function hold()"
    )
    with psycopg.connect(dsn) as blocker:
        blocker.execute("select pg_advisory_xact_lock(1)")
        yield blocker


def counted_rows(plain: psycopg.Connection) -> tuple[int, int, int]:
    """Tokens, issue events and request ids in the database."""
    row = plain.execute(
        "select (select count(*) from tokens), (select count(*) from audit_events), "
        "(select count(*) from issue_requests)"
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def changes(plain: psycopg.Connection, position: int) -> set[UUID]:
    """The tokens that a position is about."""
    return {row[0] for row in plain.execute("select token_id from changes where position = %s", [position])}


async def tree(store: PostgresStore) -> list[UUID]:
    """root -> child -> grandchild -> leaf, each of another subject."""
    ids: list[UUID] = []
    for subject in ("root", "child", "grandchild", "leaf"):
        ids.append(await stored(store, subject, issued_by=ids[-1] if ids else None))
    return ids
