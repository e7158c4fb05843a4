"""The wire between a server and its PostgreSQL, with a hand on the server's life: it is killed right before one of its
writes goes out, or right after PostgreSQL has carried it out and before anybody hears of that.

It reads what the server says (https://www.postgresql.org/docs/current/protocol-message-formats.html) and counts writes:
statements that change something, and the COMMIT of a transaction that does. What servers write all the time, whoever
calls, does not count.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final
from urllib.parse import quote

from psycopg import conninfo

WAIT_SECONDS_MAX: Final = 30
_STARTUP: Final = 196_608
_CANCEL: Final = 80_877_102
_WRITES: Final = re.compile(r"\b(insert\s+into|update|delete\s+from)\b")
_OF_ITS_OWN: Final = ("count_scopes", "end_now", "fleet_", "forget_", "pepper_", "restored_", "silent_", "usage_")
"""Statements of the background, by the beginning of their names."""


@dataclass(frozen=True, slots=True)
class Death:
    """When to kill: at which write from now on, and on which side of it."""

    number: int
    after: bool
    pid: int


class Wire:
    """Listens on a port of 127.0.0.1, for one server at a time."""

    def __init__(self, dsn: str) -> None:
        self._given = conninfo.conninfo_to_dict(dsn)
        self._own = _statements_of_the_background()
        self._death: Death | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.writes: list[str] = []
        """What was written since `arm`, in order."""
        self.port = 0

    @property
    def dsn(self) -> str:
        """The same database through this wire."""
        user, database = (quote(str(self._given.get(name, "postgres"))) for name in ("user", "dbname"))
        password = f":{quote(str(self._given['password']))}" if self._given.get("password") else ""
        return f"postgresql://{user}{password}@127.0.0.1:{self.port}/{database}"

    def arm(self, death: Death | None) -> None:
        """Begins to count, and kills at the write that `death` names. Nothing may be under way."""
        self.writes = []
        self._death = death

    def disarm(self) -> None:
        """Kills nobody any more."""
        self._death = None

    async def listen(self, listening: threading.Event, ended: asyncio.Event) -> None:
        """Accepts until `ended`."""
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            listening.set()
            await ended.wait()
            for writer in self._writers:
                writer.close()
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            upstream = await self._connect()
            writers.append(upstream[1])
            self._writers.update(writers)
            await _Connection(self, (reader, writer), upstream).run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in writers:
                one.close()
            self._writers.difference_update(writers)
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._given.get("host", "localhost")), str(self._given.get("port", 5432))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    def counts(self, sql: str) -> bool:
        """Whether a statement is a write of a call's."""
        return sql not in self._own and _WRITES.search(_without_comments(sql).lower()) is not None

    def writes_now(self, sql: str) -> bool:
        """Counts a write that is about to go out. True if the server is to die after it; kills it if before it."""
        self.writes.append(sql)
        death = self._death
        if death is None or len(self.writes) != death.number:
            return False
        if not death.after:
            self.kill()
            raise ConnectionResetError
        return True

    def kill(self) -> None:
        """Ends the server."""
        assert self._death is not None
        os.kill(self._death.pid, signal.SIGKILL)


class _Connection:
    """One of the server's connections."""

    def __init__(
        self,
        wire: Wire,
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        database: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._wire = wire
        self._server_reader, self._server_writer = server
        self._database_reader, self._database_writer = database
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._wrote = False
        """The transaction under way did."""
        self._dies = False
        """Once PostgreSQL is ready for the next query."""

    async def run(self) -> None:
        await self._begin()
        pumps = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _begin(self) -> None:
        """The first message has no type. Encryption is not to be had here."""
        while True:
            length = await self._server_reader.readexactly(4)
            body = await self._server_reader.readexactly(int.from_bytes(length, "big") - 4)
            if int.from_bytes(body[:4], "big") in (_STARTUP, _CANCEL):
                self._database_writer.write(length + body)
                return
            self._server_writer.write(b"N")

    async def _up(self) -> None:
        while True:
            kind, message = await _message(self._server_reader)
            self._hear(kind, message[5:])
            self._database_writer.write(message)
            await self._database_writer.drain()

    async def _down(self) -> None:
        while True:
            kind, message = await _message(self._database_reader)
            if self._dies:
                # Carried out, and nobody shall hear of it.
                if kind == b"Z":
                    self._wire.kill()
                    return
                continue
            self._server_writer.write(message)
            await self._server_writer.drain()

    def _hear(self, kind: bytes, body: bytes) -> None:
        match kind:
            case b"P":
                name, sql, _ = body.split(b"\0", 2)
                self._statements[name] = sql.decode()
            case b"B":
                portal, name, _ = body.split(b"\0", 2)
                self._portals[portal] = self._statements[name]
            case b"E":
                self._execute(self._portals[body.split(b"\0", 1)[0]])
            case b"Q":
                self._execute(body.rstrip(b"\0").decode())

    def _execute(self, sql: str) -> None:
        word = sql.strip().rstrip(";").lower()
        if word.startswith(("begin", "rollback")):
            self._wrote = False
        elif word.startswith("commit"):
            wrote, self._wrote = self._wrote, False
            if wrote:
                self._dies = self._wire.writes_now(sql)
        elif self._wire.counts(sql):
            self._wrote = True
            self._dies = self._wire.writes_now(sql)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def _statements_of_the_background() -> frozenset[str]:
    files = (resources.files("watchword_server.store") / "queries").iterdir()
    return frozenset(file.read_text("utf-8") for file in files if file.name.startswith(_OF_ITS_OWN))


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)


@contextmanager
def wire(dsn: str) -> Iterator[Wire]:
    """A wire to this database, in a thread of its own."""
    made, listening = Wire(dsn), threading.Event()
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.listen(listening, ended)), daemon=True)
    thread.start()
    assert listening.wait(WAIT_SECONDS_MAX)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
