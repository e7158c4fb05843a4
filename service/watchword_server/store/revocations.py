"""Revoke, and what it would do."""

from __future__ import annotations

from typing import Final

from watchword_server.store.contract import Preview, Revocation, Revoked
from watchword_server.store.database import Database
from watchword_server.store.ending import end_together, foresee
from watchword_server.store.gather import QUEUE_MAX
from watchword_server.store.together import BATCH_MAX, Together

# One that may end many tokens weighs so much. One that ends all of them shares its transaction with nobody, and neither
# does one that blocks: no Issue goes on until it is committed.
_HEAVY: Final = 50


class Revocations:
    """Runs revocations; those that wait together share a transaction (see together.py)."""

    def __init__(self, database: Database, *, queue_max: int = QUEUE_MAX) -> None:
        self._database = database
        self._together: Together[Revocation, Revoked] = Together(
            database, end_together, weigh=_weight, queue_max=queue_max
        )

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Ends what the revocation names, within its reach."""
        return await self._together.run(revocation)

    async def preview(self, revocation: Revocation) -> Preview:
        """The same, taken back. Tokens are locked meanwhile as for the revocation itself; the position is not."""
        async with self._database.reading() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute("set local lock_timeout = '5s'")
                return await foresee(connection, revocation)
            finally:
                await transaction.rollback()

    async def close(self) -> None:
        """Waits for what is under way. Cancelled, it gives that up; Postgres then takes it back."""
        await self._together.close()


def _weight(revocation: Revocation) -> int:
    selector = revocation.selector
    if selector.issued_before is not None or revocation.block:
        return BATCH_MAX
    return _HEAVY if selector.token_id is None or revocation.cascade else 1
