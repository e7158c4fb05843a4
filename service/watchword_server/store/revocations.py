"""Revoke: those that wait together share one transaction, on a connection of their own, which runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from watchword_server.store.contract import PartitionMissingError, Revocation, Revoked, RowRefusedError, StoreError
from watchword_server.store.database import DRIVER_ERRORS, Connection, Database, closed, retried, translated
from watchword_server.store.durable import acknowledged
from watchword_server.store.ending import end_together
from watchword_server.store.gather import Gatherer

_BATCH_MAX: Final = 1_000
# One that may end many tokens weighs so much; one that ends all of them shares its transaction with nobody.
_HEAVY: Final = 50


class Revocations:
    """Runs revocations, one transaction at a time. A caller that gives up waiting does not stop one.

    More at a time would only wait for each other at the position's row. A connection of their own, so that they take
    none from the checks (test_revocations_that_wait_leave_connections_to_the_checks).
    """

    def __init__(self, database: Database, *, queue_max: int) -> None:
        self._database = database
        self._connection: Connection | None = None
        # A turn of the loop brings all that arrive in it; those that come later find one under way, and wait together.
        self._gatherer: Gatherer[Revocation, Revoked] = Gatherer(
            self._send, batch_max=_BATCH_MAX, queue_max=queue_max, quiet_turns=1, weigh=_weight
        )

    async def revoke(self, revocation: Revocation) -> Revoked:
        """Ends what the revocation names, within its reach."""
        revoked = self._gatherer.submit(revocation)
        revoked.add_done_callback(_seen)
        return await asyncio.shield(revoked)

    async def _send(self, revocations: Sequence[Revocation]) -> list[Revoked | StoreError]:
        try:
            return list(await self._run(revocations))
        except StoreError as error:
            failure = error
            for_one = isinstance(error, RowRefusedError) and not isinstance(error, PartitionMissingError)
        except Exception as error:
            failure = StoreError(type(error).__name__)
            failure.__cause__ = error
            for_one = True
        if len(revocations) == 1 or not for_one:
            return [failure] * len(revocations)
        # Nothing was done, and one of them is the reason: each half without the other, down to the one.
        half = len(revocations) // 2
        return [*await self._send(revocations[:half]), *await self._send(revocations[half:])]

    async def _run(self, revocations: Sequence[Revocation]) -> Sequence[Revoked]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.connect()
            with self._database.unanswered.waiting(self._connection):
                return await retried(lambda connection: _transaction(connection, revocations), self._connection)
        except BaseException as error:
            # Whatever it was: the next one begins on a connection that nothing happened to. So one to a server that was
            # demoted goes too (test_connection_that_became_read_only_is_thrown_away).
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error) from error
            raise

    async def close(self) -> None:
        """Waits for what is under way. Cancelled, it gives that up; Postgres then takes it back."""
        await self._gatherer.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await closed(connection)


def _seen(revoked: asyncio.Future[Revoked]) -> None:
    """Its exception is nobody's, where the caller left."""
    if not revoked.cancelled():
        revoked.exception()


def _weight(revocation: Revocation) -> int:
    selector = revocation.selector
    if selector.issued_before is not None:
        return _BATCH_MAX
    return _HEAVY if selector.token_id is None or revocation.cascade else 1


async def _transaction(connection: Connection, revocations: Sequence[Revocation]) -> Sequence[Revoked]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        answers = await end_together(connection, revocations)
    except Exception:
        # Not when the store is closing: a server that says nothing would not say that it did, either.
        with suppress(*DRIVER_ERRORS):
            await transaction.rollback()
        raise
    with acknowledged(connection):
        committing = asyncio.ensure_future(transaction.commit())
        try:
            await asyncio.shield(committing)
        except asyncio.CancelledError:
            # The store is closing. A cancelled commit would be kept without its standby; one whose connection is gone
            # goes on waiting for it (test_commit_is_not_cancelled_with_its_store).
            connection.terminate()
            with suppress(*DRIVER_ERRORS):
                await committing
            raise
    return answers
