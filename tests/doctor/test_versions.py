"""Which versions of PostgreSQL are served, and what is said of others: a server that says it is of another version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import urlencode

import pytest
from psycopg import conninfo

from tests.databases import Databases
from tests.servers import ServerProcess, keyring_file
from watchword_server.store import migrate

TOO_OLD = f"is too old: Watchword needs {migrate.POSTGRES_MIN} to {migrate.POSTGRES_MAX}"
_SAID = b"server_version\0"


@asynccontextmanager
async def claiming(dsn: str, major: int) -> AsyncIterator[str]:
    """The same database on a server that says it is of this version; its URL."""
    given = conninfo.conninfo_to_dict(dsn)
    host, port = str(given.get("host", "localhost")), int(given.get("port") or 5432)

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            before, said, after = data.partition(_SAID)
            writer.write(before + said + b"%d" % major + after[2:] if said else data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            answers, asked = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            answers, asked = await asyncio.open_connection(host, port)
        await asyncio.gather(passed_on(reader, asked), passed_on(answers, writer), return_exceptions=True)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        there = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
        yield "postgresql://?" + urlencode({"user": "postgres", **given, **there})


async def said_by(command: tuple[str, ...], dsn: str, folder: Path) -> CompletedProcess[str]:
    keyring = keyring_file(folder)
    server = ServerProcess(folder, {"WATCHWORD_DATABASE_URL": dsn, "WATCHWORD_KEYRING_FILE": str(keyring)})
    return await asyncio.to_thread(server.run, *command)


@pytest.mark.parametrize("command", [("db", "upgrade"), ("db", "status"), ("bootstrap",), ("serve",)])
async def test_a_server_that_is_too_old_is_refused(
    postgres: Databases, tmp_path: Path, command: tuple[str, ...]
) -> None:
    with postgres.fresh(migrated=False) as dsn:
        async with claiming(dsn, migrate.POSTGRES_MIN - 1) as older:
            ended = await said_by(command, older, tmp_path)
        assert ended.returncode == 3
        assert f"PostgreSQL {migrate.POSTGRES_MIN - 1}." in ended.stderr
        assert TOO_OLD in ended.stderr
        # It was left as it was.
        assert all(state.applied_at is None for state in migrate.status(dsn))


async def test_doctor_says_that_a_server_is_too_old_and_asks_it_no_more(dsn: str, tmp_path: Path) -> None:
    async with claiming(dsn, migrate.POSTGRES_MIN - 1) as older:
        ended = await said_by(("doctor",), older, tmp_path)
    assert ended.returncode == 1
    assert TOO_OLD in ended.stdout
    assert "migrations" not in ended.stdout


@pytest.mark.parametrize("major", [migrate.POSTGRES_MIN, migrate.POSTGRES_MAX, migrate.POSTGRES_MAX + 1])
async def test_doctor_warns_of_a_server_that_nobody_has_tested(dsn: str, tmp_path: Path, major: int) -> None:
    async with claiming(dsn, major) as other:
        assert await asyncio.to_thread(migrate.status, other)
        ended = await said_by(("doctor",), other, tmp_path)
    assert ("not tested" in ended.stdout) is (major > migrate.POSTGRES_MAX)
    assert "migrations" in ended.stdout
