"""Fixtures that every folder shares: databases, and a running Watchword on each transport."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.databases import Databases, databases
from tests.servers import Client, ServerProcess, client
from watchword_server.keyring import Keyring

# Tokens and ids are drawn anew by each worker, which all have to call a test by the same name.
_DRAWN = re.compile(r"\w*[0-9A-Za-z]{20,}")

# Begun first, in this order: files that take a minute, so that none is what one worker is left with at the end.
_LONG = ("history", "docs", "path", "cli", "bench", "faults", "tooling", "embedded")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which `--no-loadscope-reorder` hands out files."""
    folders = [f"tests/{name}/" for name in _LONG]
    items.sort(key=lambda item: next((at for at, it in enumerate(folders) if item.nodeid.startswith(it)), len(folders)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """What a parameter is called in its test's name: without whatever is random in it, and without tokens."""
    text = val.decode("latin-1") if isinstance(val, bytes) else val
    if not isinstance(text, str) or not _DRAWN.search(text):
        return None
    return _DRAWN.sub("*", text).encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class Watchword:
    """A running server with a database of its own, and its administrator's client."""

    server: ServerProcess
    dsn: str
    admin: Client
    admin_token: str

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.address


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """One PostgreSQL for the session."""
    with databases() as made:
        yield made


@pytest.fixture
def dsn(postgres: Databases) -> Iterator[str]:
    """A migrated database of the test's own."""
    with postgres.fresh() as made:
        yield made


@pytest.fixture(scope="session")
def watchwords(postgres: Databases) -> Iterator[Callable[[str], Watchword]]:
    """One server for each transport, started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def started(transport: str) -> Watchword:
            dsn = stack.enter_context(postgres.fresh())
            return stack.enter_context(running_watchword(dsn, transport=transport))

        yield started


# Of the module: of the session, pytest would end each server whenever a test asks for the other.
@pytest.fixture(scope="module", params=["grpcio", "native"])
def watchword(request: pytest.FixtureRequest, watchwords: Callable[[str], Watchword]) -> Watchword:
    """A server that the session's tests share: use subjects and scopes of your own."""
    return watchwords(request.param)


@contextmanager
def running_watchword(dsn: str, *, transport: str = "auto", **environment: str) -> Iterator[Watchword]:
    """A server on a database, as a process."""
    with tempfile.TemporaryDirectory(prefix="ww") as folder:
        keyring = Path(folder) / "keyring"
        keyring.touch(mode=0o600)
        keyring.write_text(Keyring.generate().dump())
        settings = {
            "WATCHWORD_DATABASE_URL": dsn,
            "WATCHWORD_KEYRING_FILE": str(keyring),
            "WATCHWORD_TRANSPORT": transport,
            **environment,
        }
        server = ServerProcess(Path(folder), settings)
        token = server.bootstrap()
        with server, client(server.address, token) as admin:
            yield Watchword(server, dsn, admin, token)
