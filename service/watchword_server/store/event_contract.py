"""What the audit log is asked and told. Nothing of Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from watchword_server.store.contract import Actor
from watchword_server.store.rows import new_event_id

NEW_NETWORK: Final = "new_network"
"""A token came from a network that it was not seen in before."""


@dataclass(frozen=True, slots=True)
class Event:
    """One deed, or attempt, about to be recorded."""

    action: str
    actor: Actor
    token_id: UUID | None
    details: Mapping[str, str] = field(default_factory=dict)
    event_id: UUID = field(default_factory=new_event_id)
    outcome: str = ""
    """Why it was denied; empty: it was allowed."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One recorded deed, or attempt. `occurred_at` is when the transaction that recorded it began."""

    event_id: UUID
    occurred_at: datetime
    action: str
    actor: Actor
    token_id: UUID | None
    details: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""
    """Why it was denied; empty: it was allowed."""


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to list, newest first, those before `before`."""

    actor: str = ""
    token_id: UUID | None = None
    action: str = ""
    since: datetime | None = None
    limit: int = 100
    before: UUID | None = None
    denied_only: bool = False


class EventLog(Protocol):
    """Both raise StoreUnavailableError or StoreOverloadedError."""

    async def record_events(self, events: Sequence[Event]) -> None:
        """Records what changed nothing; what did is recorded in its own transaction. May be repeated: an event that is
        there already stays as it is."""
        ...

    async def events(self, wanted: EventQuery) -> Sequence[AuditEvent]:
        """One page of audit events."""
        ...
