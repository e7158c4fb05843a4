"""Audit events: written in the transaction of what they record, or, where nothing was changed, by themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from watchword_server.store.contract import Actor
from watchword_server.store.database import Connection, Database, query
from watchword_server.store.event_contract import AuditEvent, Event, EventQuery

_CLOCK_SKEW_MAX: Final = timedelta(days=1)
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def record(connection: Connection, events: Sequence[Event]) -> None:
    """Writes events into the transaction under way, or in one of their own."""
    await connection.execute(
        query("record_events"),
        [event.event_id for event in events],
        [event.action for event in events],
        [event.actor.subject for event in events],
        [event.actor.token_id for event in events],
        [event.actor.address for event in events],
        [event.token_id for event in events],
        [json.dumps(dict(event.details)) for event in events],
        [event.outcome or None for event in events],
    )


class EventTable:
    """The audit log by itself. Implements watchword_server.store.event_contract.EventLog."""

    def __init__(self, database: Database, *, timeout_seconds: float) -> None:
        self._database = database
        self._timeout_seconds = timeout_seconds

    async def record_events(self, events: Sequence[Event]) -> None:
        """See the contract."""
        async with self._database.connection() as connection:
            await record(connection, events)

    async def events(self, wanted: EventQuery) -> Sequence[AuditEvent]:
        """See the contract."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(query("list_events"), *arguments(wanted), timeout=self._timeout_seconds)
        return [_event(row) for row in rows]


def arguments(wanted: EventQuery) -> Sequence[object]:
    """What list_events.sql takes."""
    since_id = None if wanted.since is None else _first_id(wanted.since)
    return (
        wanted.before,
        wanted.actor,
        wanted.token_id,
        wanted.action,
        wanted.since,
        since_id,
        wanted.denied_only,
        wanted.limit,
    )


def _event(row: Any) -> AuditEvent:
    return AuditEvent(
        event_id=row["id"],
        occurred_at=row["occurred_at"],
        action=row["action"],
        actor=Actor(row["actor"], row["actor_token_id"], row["address"]),
        token_id=row["token_id"],
        details=json.loads(row["details"]),
        outcome=row["outcome"] or "",
    )


def _first_id(since: datetime) -> UUID:
    """No event of `since` or later has a smaller id: one begins with the clock of the server that made it, which may be
    behind the database's. So older partitions stay shut (test_events_since_an_instant_open_no_older_partition)."""
    milliseconds = (since - _UNIX_EPOCH - _CLOCK_SKEW_MAX) // timedelta(milliseconds=1)
    return UUID(int=max(0, milliseconds) << 80)
