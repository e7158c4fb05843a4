"""Real databases for tests: a PostgreSQL for each session, embedded or of the programs in the folder
WATCHWORD_TEST_POSTGRES, or any server by WATCHWORD_TEST_DSN.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import conninfo, sql

from watchword_server.embedded import EmbeddedPostgres
from watchword_server.embedded.account import server_account
from watchword_server.embedded.programs import Programs
from watchword_server.store import migrate


class Databases:
    """Makes databases on one PostgreSQL, each a copy of one that was migrated once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._template = f"watchword_template_{uuid4().hex[:8]}"
        self._dropping = ThreadPoolExecutor(1)
        self._drops: list[Future[None]] = []

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self._dsn, autocommit=True)

    def dsn(self, database: str) -> str:
        """The URL of a database on this server."""
        given = conninfo.conninfo_to_dict(self._dsn)
        user = given.get("user", "postgres")
        password = f":{given['password']}" if given.get("password") else ""
        host = str(given.get("host", "localhost"))
        if host.startswith("/"):
            return f"postgresql://{user}{password}@/{database}?host={host.replace('/', '%2F')}"
        return f"postgresql://{user}{password}@{host}:{given.get('port', 5432)}/{database}"

    def prepare(self) -> None:
        """Makes the migrated template."""
        with self._admin() as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(self._template)))
        migrate.upgrade(self.dsn(self._template))

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """A database of one's own; its URL."""
        with self.copy(self._template if migrated else "template1") as made:
            yield made

    @contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A copy of a database that nobody is connected to; its URL."""
        name = f"watchword_test_{uuid4().hex[:12]}"
        with self._admin() as admin:
            statement = sql.SQL("create database {} template {}")
            admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield self.dsn(name)
        finally:
            # A drop waits for a checkpoint, and no test has to wait for that.
            self._drops.append(self._dropping.submit(self.drop, name))

    def drop(self, name: str) -> None:
        """Ends a database and whoever is connected to it."""
        with self._admin() as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def close(self, *, server_stays: bool) -> None:
        """Drops what is left; no more than is under way if it goes with the server anyhow."""
        if server_stays:
            self.drop(self._template)
        self._dropping.shutdown(cancel_futures=not server_stays)
        for drop in self._drops:
            if not drop.cancelled():
                drop.result()


def programs() -> Programs:
    """PostgreSQL's programs, of the version under test."""
    found = Programs(server_account())
    found.folder = Path(os.environ.get("WATCHWORD_TEST_POSTGRES", found.folder)).absolute()
    return found


class Postgres(EmbeddedPostgres):
    """The embedded PostgreSQL, of the version under test."""

    def _find_programs(self) -> Programs:
        return programs()


@contextmanager
def databases() -> Iterator[Databases]:
    """The session's databases."""
    with tempfile.TemporaryDirectory(prefix="wwt") as folder, ExitStack() as stack:
        given = os.environ.get("WATCHWORD_TEST_DSN")
        made = Databases(given or stack.enter_context(Postgres(Path(folder))).dsn)
        made.prepare()
        stack.callback(made.close, server_stays=given is not None)
        yield made
