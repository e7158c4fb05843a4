"""For whom nothing can be issued: the list, and the way off it. (Blocking is a part of revoking; see ending.py.)"""

from __future__ import annotations

from collections.abc import Sequence

from watchword_server.store.contract import Actor, BlockedSubject
from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.durable import acknowledged
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record


class Blocked:
    """Reads the blocked subjects, and takes one off the list."""

    def __init__(self, database: Database, *, timeout_seconds: float) -> None:
        self._database = database
        self._timeout_seconds = timeout_seconds

    async def page(self, *, limit: int, after: str) -> Sequence[BlockedSubject]:
        """Those after `after`, in order of their names."""
        async with self._database.reading() as connection:
            rows = await connection.fetch(query("list_blocked"), after, limit, timeout=self._timeout_seconds)
        return [BlockedSubject(row["subject"], row["reason"], row["blocked_by"], row["blocked_at"]) for row in rows]

    async def unblock(self, subject: str, actor: Actor) -> bool:
        """Whether it was blocked. Recorded in any case."""
        async with self._database.connection() as connection:
            with acknowledged(connection):
                return await retried(lambda one: _unblock(one, subject, actor), connection)


async def _unblock(connection: Connection, subject: str, actor: Actor) -> bool:
    async with connection.transaction():
        was_blocked = bool(await connection.fetch(query("unblock"), subject))
        details = {"subject": subject, "was_blocked": str(was_blocked).lower()}
        await record(connection, [Event("unblock_subject", actor, None, details)])
    return was_blocked
