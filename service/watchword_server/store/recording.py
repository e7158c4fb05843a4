"""Audit events: written in the transaction of what they record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from watchword_server.store.contract import Actor
from watchword_server.store.database import Connection, query
from watchword_server.store.rows import new_event_id


@dataclass(frozen=True, slots=True)
class Event:
    """One event about to be written."""

    action: str
    actor: Actor
    token_id: UUID | None
    details: Mapping[str, str]
    event_id: UUID = field(default_factory=new_event_id)


async def record(connection: Connection, events: Sequence[Event]) -> None:
    """Writes events into the transaction under way."""
    await connection.execute(
        query("record_events"),
        [event.event_id for event in events],
        [event.action for event in events],
        [event.actor.subject for event in events],
        [event.actor.token_id for event in events],
        [event.actor.address for event in events],
        [event.token_id for event in events],
        [json.dumps(dict(event.details)) for event in events],
    )
