"""The feed of what became less valid: contiguous from where the reader stands, or begun anew; never silently short."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from watchword_server.store.database import Database, query
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import Change, FeedPage
from watchword_server.store.housekeeping import forget

TAKE = """
with taken as (
  update feed set position = position + 1, mark = gen_random_uuid() returning position, mark
), told as (
  insert into positions (number, mark, everything, taken_at)
  select position, mark, %(everything)s, now() - make_interval(secs => %(ago)s) from taken
)
insert into changes (position, token_id) select taken.position, unnest(%(ids)s::uuid[]) from taken
"""


def take(plain: psycopg.Connection, *ids: UUID, everything: bool = False, ago: float = 0) -> None:
    """Takes a position, as a revocation does."""
    plain.execute(TAKE.encode(), {"ids": list(ids), "everything": everything, "ago": ago})


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[PostgresFleet]:
    made = PostgresFleet(database)
    yield made
    await made.close()


async def read_on(fleet: PostgresFleet, page: FeedPage, *, limit: int = 10_000) -> list[FeedPage]:
    """All pages after that one."""
    pages = [page]
    while len(pages) == 1 or at(pages[-1]) < pages[-1].number:
        last = pages[-1]
        pages.append(await fleet.feed(at(last), last.mark, limit=limit))
        assert pages[-1].continues
        assert pages[-1].changes or at(pages[-1], last) == pages[-1].number
        if not pages[-1].changes:
            break
    return pages[1:]


def at(page: FeedPage, before: FeedPage | None = None) -> int:
    if page.changes:
        return page.changes[-1].number
    return page.number if before is None else at(before)


async def test_feed_tells_of_each_position_in_order(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    start = await fleet.feed(None, None)
    assert (start.number, start.changes, start.continues) == (0, (), False)
    nothing = await fleet.feed(0, start.mark)
    assert (nothing.number, nothing.mark, nothing.changes, nothing.continues) == (0, start.mark, [], True)
    first, second = ids(1), ids(3)
    take(plain, *first)
    take(plain, *second)
    take(plain, everything=True)
    page = await fleet.feed(0, start.mark)
    assert page.continues
    assert [(change.number, set(change.token_ids), change.everything) for change in page.changes] == [
        (1, set(first), False),
        (2, set(second), False),
        (3, set(), True),
    ]
    end = await fleet.feed(3, page.mark)
    assert (end.continues, end.changes, end.mark) == (True, [], page.mark)
    # A position in between has a mark of its own.
    assert not (await fleet.feed(2, page.mark)).continues


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
async def test_pages_never_split_a_position(fleet: PostgresFleet, plain: psycopg.Connection, limit: int) -> None:
    start = await fleet.feed(None, None)
    sizes = [1, 4, 0, 1, 1, 0, 0, 7, 1]
    for size in sizes:
        take(plain, *ids(size), everything=size == 0)
    pages = await read_on(fleet, start, limit=limit)
    changes = [change for page in pages for change in page.changes]
    assert [len(change.token_ids) for change in changes] == sizes
    assert [change.number for change in changes] == list(range(1, len(sizes) + 1))
    for page in pages:
        assert sum(len(change.token_ids) for change in page.changes[:-1]) < limit


async def test_position_of_another_history_does_not_continue(fleet: PostgresFleet, plain: psycopg.Connection) -> None:
    start = await fleet.feed(None, None)
    take(plain, *ids(1))
    for after, mark in ((0, uuid4()), (0, None), (5, start.mark), (2, start.mark), (-1, start.mark)):
        page = await fleet.feed(after, mark)
        assert (page.continues, page.changes, page.number) == (False, (), 1)
        assert page.pruned == (after < 0)
        assert (await fleet.feed(page.number, page.mark)).continues


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_gap_does_not_continue(fleet: PostgresFleet, plain: psycopg.Connection, missing: int) -> None:
    start = await fleet.feed(None, None)
    for _ in range(3):
        take(plain, *ids(1))
    plain.execute("delete from positions where number = %s", [missing])
    plain.execute("delete from changes where position = %s", [missing])
    pages = [await fleet.feed(0, start.mark)]
    while pages[-1].continues and pages[-1].changes:
        pages.append(await fleet.feed(at(pages[-1]), pages[-1].mark))
    assert not pages[-1].continues


async def test_readers_see_no_gap_while_writers_commit(fleet: PostgresFleet, ready_dsn: str) -> None:
    """Two writers at a time, and readers that read on all the while: everybody sees every id, in order."""
    start = await fleet.feed(None, None)
    written: set[UUID] = set()

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(ready_dsn, autocommit=True) as connection:
            for count in range(100):
                given = ids(count % 3 + 1)
                written.update(given)
                await connection.execute(TAKE.encode(), {"ids": given, "everything": False, "ago": 0})

    async def read() -> list[Change]:
        seen: list[Change] = []
        page = start
        while len(seen) < 200:
            page = await fleet.feed(len(seen), page.mark, limit=4)
            assert page.continues
            seen += page.changes
        return seen

    seen, other, *_ = await asyncio.gather(read(), read(), write(), write())
    assert [change.number for change in seen] == list(range(1, 201))
    assert {token_id for change in seen for token_id in change.token_ids} == written
    assert [(one.number, set(one.token_ids)) for one in seen] == [(one.number, set(one.token_ids)) for one in other]


async def test_pruned_reader_begins_anew_and_the_last_position_stays(
    fleet: PostgresFleet, database: Database, plain: psycopg.Connection
) -> None:
    pages = [await fleet.feed(None, None)]
    for _ in range(5):
        take(plain, *ids(2), ago=7200)
        pages.append(await fleet.feed(None, None))
    take(plain, *ids(2))
    pages.append(await fleet.feed(None, None))
    await forget(database, changes_kept_seconds=3600)
    assert [page.number for page in pages] == list(range(7))
    read = [await fleet.feed(page.number, page.mark) for page in pages]
    assert [page.continues for page in read] == [False] * 5 + [True] * 2
    assert [page.pruned for page in read] == [True] * 5 + [False] * 2
    assert plain.execute("select array_agg(number order by number) from positions").fetchone() == ([5, 6],)
    assert plain.execute("select array_agg(distinct position) from changes").fetchone() == ([6],)
    await forget(database, changes_kept_seconds=3600)
    assert plain.execute("select pruned_to from feed").fetchone() == (5,)
    # Even with nothing kept at all, whoever stands at the end goes on.
    await forget(database, changes_kept_seconds=-60)
    assert (await fleet.feed(6, pages[6].mark)).continues
    take(plain, *ids(1))
    assert [change.number for change in (await fleet.feed(6, pages[6].mark)).changes] == [7]


async def test_pruning_goes_by_chunks_and_may_run_twice_at_once(
    fleet: PostgresFleet, database: Database, plain: psycopg.Connection
) -> None:
    for size in (3, 0, 1, 1, 12, 0, 0, 2):
        take(plain, *ids(size), everything=size == 0, ago=7200)
    await asyncio.gather(*(forget(database, changes_kept_seconds=3600, chunk=2) for _ in range(3)))
    assert plain.execute("select pruned_to, (select count(*) from changes) from feed").fetchone() == (8, 0)
    assert plain.execute("select array_agg(number) from positions").fetchone() == ([8],)


async def test_reader_is_never_short_while_changes_are_pruned(
    fleet: PostgresFleet, database: Database, ready_dsn: str
) -> None:
    start = await fleet.feed(None, None)
    done = asyncio.Event()

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(ready_dsn, autocommit=True) as connection:
            for _ in range(100):
                await connection.execute(TAKE.encode(), {"ids": ids(2), "everything": False, "ago": 7200})
        done.set()

    async def prune() -> None:
        while not done.is_set():
            await forget(database, changes_kept_seconds=3600, chunk=3)

    async def read() -> int:
        number, mark, begun_anew = start.number, start.mark, 0
        while number < 100:
            page = await fleet.feed(number, mark, limit=4)
            if page.continues:
                for change in page.changes:
                    number += 1
                    assert (change.number, len(change.token_ids)) == (number, 2)
            else:
                begun_anew += 1
                number = page.number
            mark = page.mark
        return begun_anew

    await asyncio.gather(read(), read(), write(), prune())


async def test_feed_is_read_by_its_indexes(database: Database, plain: psycopg.Connection) -> None:
    """However many changes are kept, a page costs what is on it: under the generic plan that serves."""
    plain.execute(
        "insert into positions (number, mark) select n, gen_random_uuid() from generate_series(1, 20000) as n"
    )
    plain.execute(
        "insert into changes (position, token_id) select n, gen_random_uuid() from generate_series(1, 20000) as n"
    )
    plain.execute("update feed set position = 20000")
    plain.execute("analyze positions, changes")
    connection = await database.connect(generic_plans=True)
    statement = await connection.prepare(query("fleet_feed"))
    plan = json.loads(json.dumps(await statement.explain(19_990, 10_000, analyze=True)))
    nodes = list(_nodes(plan))
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "feed"]
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 20
    await connection.close()


def _nodes(plan: Any) -> Any:
    if isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for value in plan.values():
            yield from _nodes(value)
    elif isinstance(plan, list):
        for value in plan:
            yield from _nodes(value)
