"""Who used which token where: stored in batches, and sessions move on with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from watchword.token import expires_at_ms
from watchword_server.store.contract import Actor, PartitionMissingError, Use
from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.event_contract import NEW_NETWORK, Event
from watchword_server.store.partitions import covered_ranges
from watchword_server.store.recording import record

# In the background, and done again if it fails: a commit that is given up and was done after all counts twice.
_STATEMENT_SECONDS_MAX: Final = 10.0
_EVENTS_MAX: Final = 100
"""In one transaction. More new networks at once are a move of many, or a verifier that makes them up."""
_COUNT_MAX: Final = 2**52
"""At a time. Who counts more makes it up."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def store_uses(database: Database, uses: Sequence[Use], *, slack: timedelta) -> tuple[int, int]:
    """Merges uses into what is known, moves on the sessions among them, and records which tokens came from a network
    that they were never seen in. How many were stored, and how many came from such a network.

    A session then ends its idle timeout and `slack` after its last use: by so much may what is known be behind. Uses of
    tokens that are not there, or not meant for the service, are left out. Raises StoreError.
    """
    try:
        return await _stored(database, uses, slack)
    except PartitionMissingError:
        # An expired token's was dropped just now, or another version of the server makes none.
        async with database.connection() as connection:
            covered = (await covered_ranges(connection)).get("token_usage", [])
        return await _stored(database, [use for use in uses if _lies_in(covered, use.token_id)], slack)


def _lies_in(covered: Sequence[tuple[datetime, datetime]], token_id: UUID) -> bool:
    # Not as instants: an id that somebody made up may end after the year 9999.
    ends_at_ms = expires_at_ms(token_id)
    return any(_ms(lower) <= ends_at_ms < _ms(upper) for lower, upper in covered)


def _ms(instant: datetime) -> int:
    return (instant - _UNIX_EPOCH) // _MILLISECOND


async def _stored(database: Database, uses: Sequence[Use], slack: timedelta) -> tuple[int, int]:
    async def transaction(connection: Connection) -> tuple[int, int]:
        async with connection.transaction():
            rows = await connection.fetch(
                query("usage_store"),
                [use.token_id for use in uses],
                [use.service for use in uses],
                [min(use.count, _COUNT_MAX) for use in uses],
                [use.used_ago_seconds for use in uses],
                [use.address for use in uses],
                [" ".join(use.scopes) for use in uses],
                timeout=_STATEMENT_SECONDS_MAX,
            )
            await _slide(connection, rows, slack)
            events = _new_networks([*rows, *await _inherited(connection, rows)])
            if events:
                await record(connection, events[:_EVENTS_MAX])
        return len(rows), len(events)

    async with database.connection() as connection:
        return await retried(transaction, connection)


async def _inherited(connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """For successors by rotation that were just used for the first time: where that was, by what is known of their
    predecessors."""
    heirs = {row["token_id"]: row["heir_of"] for row in rows if row["heir_of"] is not None}
    if not heirs:
        return ()
    found: Sequence[Any] = await connection.fetch(
        query("usage_inherit"), list(heirs), list(heirs.values()), timeout=_STATEMENT_SECONDS_MAX
    )
    return found


async def _slide(connection: Connection, rows: Sequence[Any], slack: timedelta) -> None:
    last_used: dict[UUID, datetime] = {}
    for row in rows:
        if row["slides"]:
            token_id = row["token_id"]
            last_used[token_id] = max(row["last_used_at"], last_used.get(token_id, row["last_used_at"]))
    if last_used:
        await connection.execute(
            query("usage_slide"),
            list(last_used),
            list(last_used.values()),
            slack.total_seconds(),
            timeout=_STATEMENT_SECONDS_MAX,
        )


def _new_networks(rows: Sequence[Any]) -> list[Event]:
    """One for each token and network, at however many services it was seen."""
    events: dict[tuple[UUID, str], Event] = {}
    for row in rows:
        if row["new_network"] is not None:
            details = {"network": row["new_network"], "service": row["service"]}
            event = Event(NEW_NETWORK, Actor(row["service"], None, row["address"]), row["token_id"], details)
            events.setdefault((row["token_id"], row["new_network"]), event)
    return list(events.values())


async def meant(database: Database, uses: Sequence[Use]) -> Sequence[Use]:
    """Those of bound tokens that are there and meant for the service. Raises StoreError."""
    if not uses:
        return ()
    async with database.connection() as connection:
        rows = await connection.fetch(
            query("usage_meant"),
            [use.token_id for use in uses],
            [use.service for use in uses],
            range(len(uses)),
            timeout=_STATEMENT_SECONDS_MAX,
        )
    return [uses[row["number"]] for row in rows]
