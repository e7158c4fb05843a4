"""Which tokens a list holds: by owner, by kind, by what is left of them, and by when they were last used."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from tests.store.uses import session, token, use
from watchword_server.rules.tokens import TokenKind
from watchword_server.store.contract import TokenQuery
from watchword_server.store.database import Database
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.usage import store_uses

DAY = timedelta(days=1)
# How late a loaded machine may be between two statements.
LATE = timedelta(seconds=30)


async def listed(store: PostgresStore, wanted: TokenQuery) -> set[UUID]:
    records, _ = await store.tokens(wanted)
    return {record.token_id for record in records}


async def test_tokens_of_an_owner(store: PostgresStore, plain: psycopg.Connection) -> None:
    hers, other = token(plain), token(plain)
    plain.execute("update tokens set kind = 2, owner = case id when %s then 'ada' else 'bob' end", [hers])
    nobodys = token(plain)
    assert await listed(store, TokenQuery(owner="ada")) == {hers}
    assert await listed(store, TokenQuery(owner="carol")) == set()
    assert await listed(store, TokenQuery()) == {hers, other, nobodys}


async def test_tokens_of_a_kind(store: PostgresStore, plain: psycopg.Connection) -> None:
    service, personal, ones_session = token(plain), token(plain), session(plain)
    plain.execute("update tokens set kind = 2 where id = %s", [personal])
    assert await listed(store, TokenQuery(kind=TokenKind.SERVICE)) == {service}
    assert await listed(store, TokenQuery(kind=TokenKind.PERSONAL)) == {personal}
    assert await listed(store, TokenQuery(kind=TokenKind.SESSION)) == {ones_session}


@pytest.mark.parametrize(
    ("ends_in", "is_listed"), [(DAY - LATE, True), (DAY, True), (DAY + LATE, False)], ids=["before", "at", "after"]
)
async def test_tokens_that_end_soon(
    store: PostgresStore, plain: psycopg.Connection, ends_in: timedelta, is_listed: bool
) -> None:
    one = token(plain, ends_in=10 * DAY)
    plain.execute("update tokens set expires_at = now() + %s", [ends_in])
    assert await listed(store, TokenQuery(expiring_within=DAY)) == ({one} if is_listed else set())


async def test_a_session_ends_soon_if_it_has_been_idle_for_long(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    idle = session(plain, left=timedelta(minutes=5), ends_in=10 * DAY)
    session(plain, left=timedelta(hours=5), ends_in=10 * DAY)
    assert await listed(store, TokenQuery(expiring_within=timedelta(hours=1))) == {idle}


async def test_a_session_that_was_idle_for_too_long_is_not_live(
    store: PostgresStore, plain: psycopg.Connection
) -> None:
    over = session(plain, left=timedelta())
    assert await listed(store, TokenQuery()) == set()
    assert await listed(store, TokenQuery(include_inactive=True)) == {over}


@pytest.mark.parametrize(
    ("used_ago", "is_listed"),
    [(timedelta(), False), (12 * DAY - LATE, False), (12 * DAY, True), (12 * DAY + LATE, True)],
    ids=["now", "before", "at", "after"],
)
async def test_tokens_that_were_not_used_for_long(
    database: Database, store: PostgresStore, plain: psycopg.Connection, used_ago: timedelta, is_listed: bool
) -> None:
    one = token(plain)
    plain.execute("update tokens set created_at = now() - interval '90 days'")
    await store_uses(database, [use(one, ago=used_ago.total_seconds())], slack=timedelta())
    assert await listed(store, TokenQuery(unused_for=12 * DAY)) == ({one} if is_listed else set())


async def test_one_use_at_any_service_is_a_use(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one = token(plain, audiences=["*"])
    plain.execute("update tokens set created_at = now() - interval '90 days'")
    uses = [use(one, ago=40 * 86_400), use(one, service="billing")]
    await store_uses(database, uses, slack=timedelta())
    assert await listed(store, TokenQuery(unused_for=30 * DAY)) == set()


@pytest.mark.parametrize(("made_ago", "is_listed"), [(12 * DAY - LATE, False), (12 * DAY, True)], ids=["before", "at"])
async def test_one_that_was_never_used_is_unused_since_it_was_made(
    store: PostgresStore, plain: psycopg.Connection, made_ago: timedelta, is_listed: bool
) -> None:
    one = token(plain)
    plain.execute("update tokens set created_at = now() - %s", [made_ago])
    assert await listed(store, TokenQuery(unused_for=12 * DAY)) == ({one} if is_listed else set())


async def test_pages_of_unused_tokens_follow_one_another(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    ids = sorted(token(plain, ends_in=timedelta(days=1, minutes=number)) for number in range(9))
    await store_uses(database, [use(token_id) for token_id in ids[::3]], slack=timedelta())
    found: list[UUID] = []
    after: UUID | None = None
    while True:
        records, _ = await store.tokens(TokenQuery(unused_for=timedelta(hours=1), limit=2, after=after))
        if not records:
            break
        found += [record.token_id for record in records]
        after = found[-1]
    assert found == [token_id for place, token_id in enumerate(ids) if place % 3]
