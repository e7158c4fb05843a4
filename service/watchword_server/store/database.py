"""The connections to Postgres: how they are made, kept alive, given out, and what their errors mean."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib import resources
from typing import Any, Final, TypeVar

import asyncpg

from watchword_server.store.contract import (
    PartitionMissingError,
    RowRefusedError,
    StoreError,
    StoreOverloadedError,
    StoreUnavailableError,
)
from watchword_server.store.unanswered import Unanswered

# A dead peer on an idle connection is noticed within about 30 s; asyncpg sets none of these.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000))
# Far longer than any transaction is left alone by a server that runs.
IDLE_TRANSACTION_SECONDS_MAX: Final = 10
# Both are cured by doing the transaction again.
RETRIED: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
WRITE_ATTEMPTS_MAX: Final = 5
# Lists and searches at a time, and waiting: they may take seconds each, and whoever asks for many must leave
# connections to revocations and to the health probe, and permits to everybody else's calls.
READS_MAX: Final = 2
READS_WAITING_MAX: Final = 64
_LEAVE_SECONDS_MAX: Final = 1.0
_POOL_SECONDS_MAX: Final = 3.0
# Everything that a database, the driver or the way between them raises.
DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

T = TypeVar("T")
# asyncpg gives out a proxy of its connection class that shares no type with it.
Connection = Any


@cache
def query(name: str) -> str:
    """The text of queries/<name>.sql."""
    return (resources.files(__package__) / "queries" / f"{name}.sql").read_text("utf-8")


def lock_key(purpose: str) -> int:
    """The number of an advisory lock. All programs of a database share them, so it is drawn from a name."""
    return int.from_bytes(hashlib.sha256(f"watchword: {purpose}".encode()).digest()[:8], "big", signed=True)


class Database:
    """A pool of connections on which every statement stands alone.

    Connections come back clean by construction (no temporary state is ever set on them), so the reset that asyncpg
    would send with every release, a round trip of its own, is left out.
    """

    def __init__(self, pool: asyncpg.Pool, connect: Callable[[str], Awaitable[Connection]]) -> None:
        self._pool = pool
        self._connect = connect
        self._reads = asyncio.Semaphore(READS_MAX)
        self._reads_asked = 0
        self._pinged: Connection | None = None
        self._closed = False
        self.unanswered = Unanswered()
        """What is under way on connections of this pool, and of those that others had made, without a deadline."""

    @classmethod
    async def open(cls, dsn: str, *, pool_size_max: int, connect_timeout_seconds: float = 5) -> Database:
        """Connects. Raises StoreUnavailableError."""

        async def connect(plan_cache_mode: str) -> Connection:
            connection = await asyncpg.connect(dsn, **_options(connect_timeout_seconds, plan_cache_mode))
            await _set_socket_options(connection)
            return connection

        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=pool_size_max,
                reset=_keep_as_it_is,
                init=_set_socket_options,
                **_options(connect_timeout_seconds, "force_custom_plan"),
            )
        except DRIVER_ERRORS as error:
            raise translated(error) from error
        except ValueError:
            # Its text quotes what it stumbled over, which may be half of a password.
            raise StoreUnavailableError("the database's connection string cannot be read") from None
        return cls(pool, connect)

    async def connect(self, *, generic_plans: bool = False) -> Connection:
        """A connection of one's own, outside the pool. Driver errors come out as they are.

        Plans are made for the very ids by default, because only then are the partitions known that they lie in; a
        statement that finds its partitions while it runs saves the planning with `generic_plans`.
        """
        connection = await self._connect("force_generic_plan" if generic_plans else "force_custom_plan")
        self.unanswered.know(connection)
        return connection

    async def drop_idle(self) -> None:
        """Uses no connection again that was made by now. What is under way is left alone, but for some reads."""
        self.unanswered.drop_idle()
        await self._pool.expire_connections()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, for statements that stand alone. Driver errors come out as StoreError."""
        try:
            connection = await self._pool.acquire()
            try:
                with self.unanswered.waiting(connection):
                    yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                # The server behind this connection was demoted: the next one has to be made anew.
                connection.terminate()
                raise
            finally:
                # The pool waits until the server said that it stopped with what was given up, or hangs up.
                # (test_list_on_a_connection_that_was_forgotten_is_given_up)
                with suppress(TimeoutError):
                    await self._pool.release(connection, timeout=_LEAVE_SECONDS_MAX)
        except DRIVER_ERRORS as error:
            raise translated(error) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """As `connection`, in turn, for what may take long (test_lists_leave_connections_to_revocations).

        Raises StoreOverloadedError when too many wait for theirs.
        """
        if self._reads_asked >= READS_MAX + READS_WAITING_MAX:
            raise StoreOverloadedError("too many lists wait for the database")
        self._reads_asked += 1
        try:
            async with self._reads, self.connection() as connection:
                yield connection
        finally:
            self._reads_asked -= 1

    async def ping(self) -> None:
        """One trip to the database. Raises StoreUnavailableError.

        On a connection of its own, thrown away when the trip is given up: the pool takes one back only after the server
        said that it stopped, and a silent one says nothing (test_ping_of_a_silent_database_is_given_up_at_once).
        """
        if self._closed:
            raise StoreUnavailableError("the database is closed")
        connection, self._pinged = self._pinged, None
        try:
            if connection is None or connection.is_closed():
                connection = await self.connect()
            with self.unanswered.waiting(connection):
                await connection.fetchval("select 1")
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, DRIVER_ERRORS):
                raise translated(error) from error
            raise
        self._pinged = connection

    @property
    def size(self) -> int:
        """Open connections."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """Open connections that nobody uses."""
        return self._pool.get_idle_size()

    async def close(self) -> None:
        """Closes all connections, after those in use come back; at most a few seconds."""
        self._closed = True
        try:
            async with asyncio.timeout(_POOL_SECONDS_MAX):
                if self._pinged is not None:
                    await closed(self._pinged)
                await self._pool.close()
        except DRIVER_ERRORS:
            self._pool.terminate()


def _options(connect_timeout_seconds: float, plan_cache_mode: str) -> dict[str, Any]:
    return {
        "timeout": connect_timeout_seconds,
        # After a fail-over a demoted primary must not be used.
        "target_session_attrs": "read-write",
        "server_settings": {
            "application_name": "watchword",
            "plan_cache_mode": plan_cache_mode,
            "jit": "off",
            "timezone": "UTC",
            # A commit whose wait for its standby was cancelled says so by a warning only: a role must not hide it.
            "client_min_messages": "warning",
            # A transaction of a process that froze, or that the network cut off without a word, holds up no others for
            # longer: its locks go. (test_locks_of_a_transaction_that_nobody_goes_on_with_are_released)
            "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_SECONDS_MAX}s",
            # A cascade looks for what was issued while it waited for the issuer's row, which no snapshot of before
            # shows. (test_cascade_misses_nothing_whatever_isolation_the_database_prefers)
            "default_transaction_isolation": "read committed",
        },
    }


async def closed(*connections: Connection) -> None:
    """Closes them side by side. A server that is there takes leave at once; to one that does not, nobody listens."""

    async def close(connection: Connection) -> None:
        try:
            await connection.close(timeout=_LEAVE_SECONDS_MAX)
        except DRIVER_ERRORS:
            connection.terminate()

    await asyncio.gather(*(close(connection) for connection in connections))


async def _keep_as_it_is(connection: Any) -> None:
    """In place of asyncpg's reset."""


async def _set_socket_options(connection: Any) -> None:
    transport = connection._transport
    peer: socket.socket | None = transport.get_extra_info("socket") if transport is not None else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)


async def retried(work: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
    """Does a whole transaction again when it was given up only because of others (SQLSTATE 40001, 40P01)."""
    for _ in range(WRITE_ATTEMPTS_MAX - 1):
        try:
            return await work(connection)
        except RETRIED:
            continue
    return await work(connection)


def translated(error: Exception) -> StoreError:
    """What a driver's error means. Its text stays in the chain, for logs; it never reaches a caller."""
    if isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name:
        # "no partition of relation found for row" comes under this SQLSTATE.
        return PartitionMissingError(type(error).__name__)
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return RowRefusedError(type(error).__name__)
    if isinstance(error, asyncpg.SyntaxOrAccessError):
        # A table or a right that is missing: a defect, which no retry mends and the log has to show.
        return StoreError(type(error).__name__)
    return StoreUnavailableError(type(error).__name__)
