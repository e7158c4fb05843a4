"""Changes that make tokens less valid: those that wait together share one transaction, on a connection of their own,
which runs to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from watchword_server.store.contract import (
    LastAdministratorError,
    PartitionMissingError,
    RowRefusedError,
    StoreError,
)
from watchword_server.store.database import DRIVER_ERRORS, Connection, Database, closed, retried, translated
from watchword_server.store.durable import acknowledged
from watchword_server.store.gather import QUEUE_MAX, Gatherer

BATCH_MAX: Final = 1_000

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Runs changes of type Q, one transaction at a time. A caller that gives up waiting does not stop one.

    More at a time would only wait for each other at the position's row. A connection of their own, so that they take
    none from the checks (test_revocations_that_wait_leave_connections_to_the_checks).

    `work` does all of a batch in the transaction that it is called in, with one answer for each, in order. Whatever it
    raises, nothing was done. With `lock_timeout_seconds` it gives up on a row that somebody else holds for so long: it
    would hold up all that share the transaction, and those behind them.
    """

    def __init__(
        self,
        database: Database,
        work: Callable[[Connection, Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        weigh: Callable[[Q], int] = lambda change: 1,
        lock_timeout_seconds: float = 0,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._database = database
        self._work = work
        self._lock_timeout_ms = round(lock_timeout_seconds * 1000)
        self._connection: Connection | None = None
        # A turn of the loop brings all that arrive in it; those that come later find one under way, and wait together.
        self._gatherer: Gatherer[Q, A] = Gatherer(
            self._send, batch_max=BATCH_MAX, queue_max=queue_max, quiet_turns=1, weigh=weigh
        )

    async def run(self, change: Q) -> A:
        """One change's answer."""
        answer = self._gatherer.submit(change)
        answer.add_done_callback(_seen)
        return await asyncio.shield(answer)

    async def _send(self, changes: Sequence[Q]) -> list[A | StoreError]:
        try:
            return list(await self._run(changes))
        except StoreError as error:
            failure = error
            for_one = isinstance(error, RowRefusedError | LastAdministratorError)
            for_one = for_one and not isinstance(error, PartitionMissingError)
        except Exception as error:
            failure = StoreError(type(error).__name__)
            failure.__cause__ = error
            for_one = True
        if len(changes) == 1 or not for_one:
            return [failure] * len(changes)
        # Nothing was done, and one of them is the reason: each half without the other, down to the one.
        half = len(changes) // 2
        return [*await self._send(changes[:half]), *await self._send(changes[half:])]

    async def _run(self, changes: Sequence[Q]) -> Sequence[A]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.connect()
                if self._lock_timeout_ms:
                    sql = "select set_config('lock_timeout', $1, false)"
                    await self._connection.execute(sql, f"{self._lock_timeout_ms}ms")
            with self._database.unanswered.waiting(self._connection):
                return await retried(lambda connection: self._transaction(connection, changes), self._connection)
        except LastAdministratorError:
            # Rolled back, on a connection that nothing happened to.
            raise
        except BaseException as error:
            # Whatever it was: the next one begins on a connection that nothing happened to. So one to a server that was
            # demoted goes too (test_connection_that_became_read_only_is_thrown_away).
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error) from error
            raise

    async def _transaction(self, connection: Connection, changes: Sequence[Q]) -> Sequence[A]:
        transaction = connection.transaction()
        await transaction.start()
        try:
            answers = await self._work(connection, changes)
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
                # The store is closing. A cancelled commit would be kept without its standby; one whose connection is
                # gone goes on waiting for it (test_commit_is_not_cancelled_with_its_store).
                connection.terminate()
                with suppress(*DRIVER_ERRORS):
                    await committing
                raise
        return answers

    async def close(self) -> None:
        """Waits for what is under way. Cancelled, it gives that up; Postgres then takes it back."""
        await self._gatherer.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            await closed(connection)


def _seen(answer: asyncio.Future[A]) -> None:
    """Its exception is nobody's, where the caller left."""
    if not answer.cancelled():
        answer.exception()
