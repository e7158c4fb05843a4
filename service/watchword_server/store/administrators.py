"""Who can still issue administrators, and until when: nobody shall be locked out unawares."""

from __future__ import annotations

from datetime import datetime

from watchword_server.store.database import Database, query


async def last_administrator_ends_at(database: Database) -> tuple[datetime | None, datetime]:
    """When the last live administrator's token ends (None: there is none), and the database's clock."""
    async with database.connection() as connection:
        row = await connection.fetchrow(query("administrators"))
    return row["last_ends_at"], row["read_at"]
