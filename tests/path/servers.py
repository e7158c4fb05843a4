"""Several servers on one database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.path.party import Party
from tests.servers import ServerProcess, client, keyring_file

LEASE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Servers that share a database and a keyring, and the administrator at each."""

    dsn: str
    servers: list[ServerProcess]
    admins: list[Party]


@contextmanager
def running_fleet(dsn: str, count: int, *, transport: str = "auto", **environment: str) -> Iterator[Fleet]:
    """So many servers, with short leases."""
    with tempfile.TemporaryDirectory(prefix="ww") as name, ExitStack() as stack:
        folder = Path(name)
        keyring = keyring_file(folder)
        settings = {
            "WATCHWORD_DATABASE_URL": dsn,
            "WATCHWORD_KEYRING_FILE": str(keyring),
            "WATCHWORD_TRANSPORT": transport,
            "WATCHWORD_LEASE_SECONDS_MAX": str(LEASE_SECONDS),
            **environment,
        }
        servers = [ServerProcess(folder, settings) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(lambda: list(pool.map(ServerProcess.stop, servers)))
        starting = [pool.submit(server.start) for server in servers]
        token = servers[0].bootstrap()
        for started in starting:
            started.result()
        admins = [Party(stack.enter_context(client(server.address, token)).channel, token) for server in servers]
        yield Fleet(dsn, servers, admins)
