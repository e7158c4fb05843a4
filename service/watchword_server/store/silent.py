"""A rotated token ends before its grace period is over once nobody uses it any more, and its successor is in use."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from watchword.token import format_token_id
from watchword_server.store.contract import Actor
from watchword_server.store.database import Connection, Database, query, retried
from watchword_server.store.ending import take_position
from watchword_server.store.event_contract import Event
from watchword_server.store.recording import record

_ENDED_AT_ONCE: Final = 1_000
_NOBODY: Final = Actor("watchword", None, "")


async def end_silent(database: Database, *, silence: timedelta, slack: timedelta, chunk: int = _ENDED_AT_ONCE) -> int:
    """Ends the rotated tokens that have been silent for so long; how many. By `slack` what is known of their use may be
    behind. Several processes may do it at once. Raises StoreError."""

    async def end(connection: Connection) -> int:
        async with connection.transaction():
            rows = await connection.fetch(query("silent_rotations"), (silence + slack).total_seconds(), chunk)
            if not rows:
                return 0
            token_ids = [row["id"] for row in rows]
            await connection.execute(query("end_now"), token_ids)
            details = [{"successor": format_token_id(row["successor_id"])} for row in rows]
            events = zip(token_ids, details, strict=True)
            await record(connection, [Event("rotation_ended", _NOBODY, *event) for event in events])
            # Shortened is less valid: every verifier is told.
            await take_position(connection, token_ids)
        return len(rows)

    ended = 0
    async with database.connection() as connection:
        while done := await retried(end, connection):
            ended += done
            if done < chunk:
                break
    return ended
