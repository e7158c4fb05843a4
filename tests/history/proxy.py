"""A TCP proxy that breaks connections in the ways networks do, as a process of its own.

It reads commands from its standard input, a JSON line each, and answers each with one: first all its links, then one
link's new mode at a time. It ends with its input.

    python -m tests.history.proxy
    {"links": {"v0-r1": "127.0.0.1:7600", "r1-postgres": "/run/.s.PGSQL.5432"}}
    {"link": "v0-r1", "mode": "hole"}
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, Final

from tests.history.pause import pause

UP, DOWN = "up", "down"
"""Towards the upstream, and back from it."""
MODES: Final = ("pass", "cut", "hole", "hole_up", "hole_down", "half_open", "latency", "slow")
LATENCY_SECONDS: Final = 0.25
SLOW_BYTES: Final = 512
SLOW_PAUSE_SECONDS: Final = 0.1
_CHUNK_BYTES: Final = 65_536


class Connection:
    """One client's connection and ours to the upstream."""

    def __init__(self, link: Link, client: asyncio.StreamWriter) -> None:
        self.link = link
        self.client = client
        self.upstream: asyncio.StreamWriter | None = None
        self.forgotten = False
        """Half open: whatever arrives is swallowed, and neither side is told."""

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Passes on what comes until one side closes."""
        await self.link.passes(UP)
        try:
            answers, self.upstream = await self.link.connect()
        except OSError:
            self.reset()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(UP, reader, self.upstream))
                group.create_task(self._pump(DOWN, answers, self.client))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for writer in (self.client, self.upstream):
                writer.close()

    async def _pump(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self.link
        while True:
            slow = link.mode == "slow" and direction == DOWN
            data = await reader.read(SLOW_BYTES if slow else _CHUNK_BYTES)
            await link.passes(direction)
            if self.forgotten:
                if not data:
                    await link.never.wait()
                continue
            if link.mode == "latency":
                await pause(LATENCY_SECONDS)
            elif slow:
                await pause(SLOW_PAUSE_SECONDS)
            if not data:
                # Either side's end is the end of both: HTTP/2 and Postgres know no half-closed connections.
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()

    def reset(self) -> None:
        """Both sides get a RST at once."""
        for writer in (self.client, self.upstream):
            if writer is not None:
                sock = writer.get_extra_info("socket")
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()


class Link:
    """One listening port, and where it leads."""

    def __init__(self, upstream: str) -> None:
        self.mode = "pass"
        self.never = asyncio.Event()
        self._upstream = upstream
        self._connections: set[Connection] = set()
        self._open = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self.set("pass")

    async def listen(self) -> int:
        """Begins to accept; the port."""
        # A small limit: a slow link shall press back on the sender, not fill buffers here.
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=16_384)
        return int(server.sockets[0].getsockname()[1])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection to the upstream."""
        if self._upstream.startswith("/"):
            return await asyncio.open_unix_connection(self._upstream)
        host, _, port = self._upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    def set(self, mode: str) -> None:
        """Changes what happens to this link's connections, from the next byte on."""
        if mode not in MODES:
            raise ValueError(f"no such mode: {mode}")
        if mode == "half_open":
            # Those that there are, for ever; new ones pass.
            for connection in self._connections:
                connection.forgotten = True
            mode = "pass"
        self.mode = mode
        for direction, gate in self._open.items():
            if mode in ("hole", f"hole_{direction}"):
                gate.clear()
            else:
                gate.set()
        if mode == "cut":
            for connection in self._connections:
                connection.reset()

    async def passes(self, direction: str) -> None:
        """Waits while this direction is a black hole. What waits arrives after it, as lost packets do."""
        await self._open[direction].wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, writer)
        if self.mode == "cut":
            connection.reset()
            return
        self._connections.add(connection)
        try:
            await connection.run(reader)
        finally:
            self._connections.discard(connection)


async def serve() -> None:
    """Obeys standard input until its end."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    given = json.loads(await commands.readline())
    links = {name: Link(upstream) for name, upstream in given["links"].items()}
    _answer({name: await link.listen() for name, link in links.items()})
    while line := await commands.readline():
        command = json.loads(line)
        links[command["link"]].set(command["mode"])
        _answer({})


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve())
