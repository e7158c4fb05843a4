"""The plans of the hot statements open only the partitions that the ids lie in, also when they are no longer new."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.store.support import DAYS, TTL_MAX, new_token
from watchword_server.store.database import Connection, Database, query
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.issues import _columns
from watchword_server.store.partitions import Partition, ensure_partitions
from watchword_server.store.recording import arguments

# Postgres considers a generic plan from the sixth execution on.
EXECUTIONS = 8


@pytest.fixture
async def many_partitions(database: Database) -> Database:
    await ensure_partitions(database, ttl_max=TTL_MAX * 8, days=DAYS)
    return database


async def scanned(connection: Connection, sql: str, arguments: Sequence[object], *, table: str = "tokens") -> set[str]:
    """The partitions of a table that a prepared statement reads when it runs for the last of many times."""
    statement = await connection.prepare(sql)
    for _ in range(EXECUTIONS):
        await statement.fetch(*arguments)
    plan = json.dumps(await statement.explain(*arguments, analyze=True))
    nodes = _nodes(json.loads(plan))
    return {
        node["Relation Name"]
        for node in nodes
        if re.fullmatch(table + r"_\d{8}", node.get("Relation Name", ""))
        and node["Node Type"] != "ModifyTable"
        and node["Actual Loops"] > 0
    }


def _nodes(plan: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if isinstance(plan, dict):
        if "Node Type" in plan:
            found.append(plan)
        for value in plan.values():
            found += _nodes(value)
    elif isinstance(plan, list):
        for value in plan:
            found += _nodes(value)
    return found


def _id(days: int) -> UUID:
    return new_token(ends_in=timedelta(days=days)).record.token_id


async def test_hot_query_prunes_partitions(many_partitions: Database) -> None:
    """As lookups.py sends it: a lone check under a generic plan, a shared one under a custom plan."""
    few = await many_partitions.connect(generic_plans=True)
    many = await many_partitions.connect()
    one, other = _id(1), _id(200)
    assert len(await scanned(few, query("read_few"), (one, one))) == 1
    assert len(await scanned(few, query("read_few"), (one, other))) == 2
    assert len(await scanned(many, query("read_many"), ([one],))) == 1
    assert len(await scanned(many, query("read_many"), ([one, other],))) == 2
    for connection in (few, many):
        await connection.close()


async def test_revocations_by_id_open_only_the_partitions_of_those_ids(many_partitions: Database) -> None:
    connection = await many_partitions.connect()
    ids = [_id(1), _id(200)]
    assert len(await scanned(connection, query("revoke_named"), (ids[:1], False))) == 1
    assert len(await scanned(connection, query("revoke_named"), (ids, True))) == 2
    assert len(await scanned(connection, query("revoke_mark"), (ids, ["", ""]))) == 2
    await connection.close()


async def test_issuers_are_locked_without_opening_other_partitions(many_partitions: Database) -> None:
    connection = await many_partitions.connect()
    issuer = new_token(ends_in=timedelta(days=200))
    for _ in range(EXECUTIONS):
        child = new_token(issued_by=issuer.record.token_id)
        await connection.fetch(query("issue"), *([value] for value in _columns(child)), [issuer.record.token_id])
    child = new_token(issued_by=issuer.record.token_id)
    arguments = (*([value] for value in _columns(child)), [issuer.record.token_id])
    assert len(await scanned(connection, query("issue"), arguments)) == 1
    await connection.close()


async def test_storing_uses_opens_only_the_partitions_of_those_ids(many_partitions: Database) -> None:
    connection = await many_partitions.connect()
    used = [new_token(ends_in=timedelta(days=days)) for days in (1, 200)]
    for token in used:
        await connection.fetch(query("issue"), *([value] for value in _columns(token)), [])
    ids = [token.record.token_id for token in used]
    arguments = (ids, ["orders"] * 2, [1] * 2, [0.0] * 2, [""] * 2, [""] * 2)
    for table in ("tokens", "token_usage"):
        assert len(await scanned(connection, query("usage_store"), arguments, table=table)) == 2
    assert len(await scanned(connection, query("usage_slide"), (ids, [datetime.now(UTC)] * 2, 0.0))) == 2
    assert len(await scanned(connection, query("usage_inherit"), (ids[:1], ids[1:]), table="token_usage")) <= 2
    assert len(await scanned(connection, query("usage"), (ids,), table="token_usage")) == 2
    await connection.close()


async def test_events_since_an_instant_open_no_older_partition(database: Database) -> None:
    """Whoever follows the log asks for the last minutes all day long."""
    now = datetime.now(UTC)
    queries = {
        "all of it": EventQuery(),
        "the last minutes": EventQuery(since=now - timedelta(minutes=10)),
        "what was denied": EventQuery(since=now - timedelta(minutes=10), denied_only=True),
        "some weeks": EventQuery(since=now - timedelta(days=45)),
    }
    async with database.connection() as connection:
        for days in range(400, 60, -DAYS):
            begins_at = now - timedelta(days=days)
            made = Partition("audit_events", begins_at, begins_at + timedelta(days=DAYS))
            await connection.fetchval(
                "select ensure_partition($1, $2, $3, $4)", made.parent, made.name, made.lower_bound, made.upper_bound
            )
        opened = {
            what: await scanned(connection, query("list_events"), arguments(wanted), table="audit_events")
            for what, wanted in queries.items()
        }
    assert len(opened["all of it"]) > 12
    assert len(opened["the last minutes"]) <= 3
    assert opened["the last minutes"] == opened["what was denied"]
    assert opened["the last minutes"] <= opened["some weeks"] < opened["all of it"]


async def test_rotations_open_only_the_partitions_of_their_tokens(many_partitions: Database) -> None:
    connection = await many_partitions.connect()
    old, successor = _id(200), _id(1)
    now = datetime.now(UTC)
    assert len(await scanned(connection, query("lock_tokens"), ([old],))) == 1
    given = (successor, 1, bytes(32), None, now, None, old, old, old, now, "caller", None, 0, None)
    assert len(await scanned(connection, query("rotate"), [[value] for value in given])) == 1
    await connection.close()


CANDIDATES: Sequence[object] = (None, None, None, None, False, None, None)


def naming(at: int, value: object) -> list[object]:
    """What revoke_candidates.sql is asked for by one of its ways to name a token."""
    return [[value] if number == at else one for number, one in enumerate(CANDIDATES)]


@pytest.mark.parametrize(
    ("name", "arguments", "columns"),
    [
        ("revoke_candidates", naming(1, "ada"), ("subject", "owner")),
        ("revoke_candidates", naming(2, _id(1)), ("issued_by", "rotated_by")),
        ("revoke_candidates", naming(5, _id(1)), ("predecessor_id",)),
        ("revoke_candidates", naming(6, _id(1)), ("tied_to",)),
        ("tied_lineages", [[_id(1)]], ("tied_to",)),
        ("live_successors", [[_id(1)]], ("lineage_id",)),
    ],
)
async def test_tokens_are_found_by_indexes(
    many_partitions: Database, name: str, arguments: Sequence[object], columns: Sequence[str]
) -> None:
    """However full the table is: each part of a condition has an index, or all of it would be read."""
    connection = await many_partitions.connect()
    async with connection.transaction():
        # A table as small as this one is read whole otherwise, or in the order of its ids, and rightly.
        await connection.execute("set local enable_seqscan = off")
        await connection.execute("set local enable_indexscan = off")
        explained = await (await connection.prepare(query(name))).explain(*arguments)
    nodes = _nodes(json.loads(json.dumps(explained)))
    assert {"Seq Scan", "Index Scan"}.isdisjoint(node["Node Type"] for node in nodes)
    scans = [node for node in nodes if node["Node Type"] == "Bitmap Index Scan"]
    assert all("Index Cond" in node for node in scans)
    conditions = " ".join(node["Index Cond"] for node in scans)
    for column in columns:
        assert re.search(rf"\b{column} = ANY", conditions)
    await connection.close()
