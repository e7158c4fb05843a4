"""Migrations: plain SQL in migrations/, forward only, applied by yoyo over one connection.

Two servers starting at once take turns at an advisory lock; whoever comes second finds nothing left to do. yoyo's own
lock is a row that a killed process leaves behind; ours ends with its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import psycopg
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI

from watchword_server.store.database import lock_key

POSTGRES_MIN: Final = 15
POSTGRES_MAX: Final = 18
"""The newest that the tests were run with; newer ones are served."""
LOCK_KEY: Final = lock_key("migrations")
_CONNECT_TIMEOUT_SECONDS: Final = 10
# DDL that waits behind a long transaction makes everything after it wait too: better to give up and try again.
_LOCK_TIMEOUT: Final = "set lock_timeout = '10s'"


class MigrationError(Exception):
    """The database could not be brought to, or is not at, the schema that this version needs."""


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration, and when it was applied (None: not yet)."""

    name: str
    applied_at: datetime | None


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo is untyped
    """yoyo on a connection made from the DSN as it is: several hosts, sockets and TLS settings stay as given."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        super().__init__(DatabaseURI("postgresql+psycopg", None, None, None, None, "", {}), "_yoyo_migrations")

    def connect(self, dburi: Any) -> Any:
        connection = psycopg.connect(self._dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_SECONDS)
        connection.execute(_LOCK_TIMEOUT)
        return connection

    def copy(self) -> _Backend:
        return _Backend(self._dsn)


def upgrade(dsn: str) -> list[str]:
    """Applies what is missing and returns the names, in order. Raises MigrationError."""
    with _backend(dsn) as backend, resources.as_file(_folder()) as folder:
        # A session's lock: it ends with the connection, however the process ends.
        backend.execute("set lock_timeout = '120s'")
        backend.execute("select pg_advisory_lock(:key)", {"key": LOCK_KEY})
        backend.execute(_LOCK_TIMEOUT)
        backend.init_database()
        # Whoever left yoyo's lock behind is gone, or would hold ours.
        backend.break_lock()
        missing = backend.to_apply(read_migrations(str(folder)))
        backend.apply_migrations(missing)
        return [migration.id for migration in missing]


def status(dsn: str) -> list[MigrationState]:
    """Every known migration in order. Raises MigrationError."""
    with _backend(dsn) as backend, resources.as_file(_folder()) as folder:
        applied: dict[str, datetime] = {}
        if "_yoyo_migrations" in backend.list_tables():
            for name, at in backend.execute("select migration_id, applied_at_utc from _yoyo_migrations").fetchall():
                applied[name] = at.replace(tzinfo=UTC)
        return [MigrationState(one.id, applied.get(one.id)) for one in read_migrations(str(folder))]


def _folder() -> Any:
    return resources.files(__package__) / "migrations"


@contextmanager
def _backend(dsn: str) -> Iterator[Any]:
    try:
        backend = _Backend(dsn)
        with closing(backend.connection):
            _refuse_old(backend.connection.info)
            yield backend
    except psycopg.Error as error:
        # Only the server's own sentence: the DSN, with its password, must not come along.
        raise MigrationError(_sentence(error)) from None


def _refuse_old(server: psycopg.ConnectionInfo) -> None:
    if server.server_version < POSTGRES_MIN * 10_000:
        name = server.parameter_status("server_version")
        raise MigrationError(f"PostgreSQL {name} is too old: Watchword needs {POSTGRES_MIN} to {POSTGRES_MAX}")


def _sentence(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
    # While connecting there is only libpq's report, which names hosts and more: the server's part of it is its end.
    _, refused, said = str(error).rpartition("FATAL:")
    return said.strip() if refused else f"cannot reach the database ({type(error).__name__})"
