"""Who can still issue administrators, and until when: nobody shall be locked out unawares."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from watchword_server.rules.tokens import ADMINISTRATOR_SCOPE, WATCHWORD
from watchword_server.store.database import Database, query

ENDS_SOON: Final = timedelta(days=14)
"""From here on everybody hears of it: the log, the metric's alert, doctor."""


def administers(*, scopes: Sequence[str], audiences: Sequence[str], gives: bool) -> bool:
    """Whether a live token makes its holder an administrator, as administrators.sql has it. `gives`: it has grants."""
    return gives and ADMINISTRATOR_SCOPE in scopes and WATCHWORD in audiences


async def last_administrator_ends_at(database: Database) -> tuple[datetime | None, datetime]:
    """When the last live administrator's token ends (None: there is none), and the database's clock."""
    async with database.connection() as connection:
        row = await connection.fetchrow(query("administrators"))
    return row["last_ends_at"], row["read_at"]
