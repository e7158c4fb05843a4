"""Connections kept for one statement of a hot path: taken and given back without a pool's ceremony.

A pool's acquire and release cost as much CPU as the statement itself. Here taking one is a list's pop; a connection on
which anything went wrong is thrown away, and the next one is made anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any

import asyncpg

from watchword_server.store.database import DRIVER_ERRORS, RETRIED, Connection, closed, translated
from watchword_server.store.durable import acknowledged
from watchword_server.store.unanswered import Unanswered


class Kept:
    """Up to as many connections as there are statements under way at once; whoever uses it bounds that."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], unanswered: Unanswered) -> None:
        self._connect = connect
        self._unanswered = unanswered
        self._idle: list[Connection] = []

    async def fetch(
        self, sql: str, *arguments: object, timeout: float | None = None, attempts: int = 1, durable: bool = False
    ) -> Sequence[Any]:
        """Runs one statement, up to `attempts` times if it was given up only because of others.

        Driver errors come out as StoreError; so does an attempt that takes longer than `timeout` seconds. Connecting
        has a limit of its own. `durable`: an error also if the database gave up waiting for its standby.
        """
        connection: Connection | None = None
        try:
            connection = self._take() or await self._connect()
            with (
                acknowledged(connection) if durable else nullcontext(),
                self._unanswered.waiting(connection) if timeout is None else nullcontext(),
            ):
                rows: Sequence[Any] = await _fetch(connection, sql, arguments, attempts, timeout)
        except DRIVER_ERRORS as error:
            self._give_back(connection, error)
            raise translated(error) from error
        except BaseException:
            if connection is not None:
                connection.terminate()
            raise
        self._idle.append(connection)
        return rows

    def _take(self) -> Connection | None:
        """One that lives, as far as is known. A restarted server has closed all of them, not only the first."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _give_back(self, connection: Connection | None, error: Exception) -> None:
        if connection is None:
            return
        # The server's refusal of a statement says nothing against the connection, unless it was demoted.
        refused = isinstance(error, asyncpg.PostgresError) and not connection.is_closed()
        if refused and not isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._idle.append(connection)
        else:
            connection.terminate()

    async def close(self) -> None:
        """Closes what is idle. Nothing may be under way."""
        idle, self._idle = self._idle, []
        await closed(*idle)


async def _fetch(
    connection: Connection, sql: str, arguments: Sequence[object], attempts: int, timeout: float | None
) -> Sequence[Any]:
    while True:
        attempts -= 1
        try:
            rows: Sequence[Any] = await connection.fetch(sql, *arguments, timeout=timeout)
        except RETRIED:
            if not attempts:
                raise
        else:
            return rows
