"""A whole fleet on one machine: a PostgreSQL, replicas, verifiers in their own processes, a proxy in all the wires."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.databases import Postgres
from tests.history.fleet_facts import AUDIENCE, SCOPE, USAGE_INTERVAL_SECONDS
from tests.history.process import ROOT, Program
from tests.history.verifier_process import Configuration
from tests.ports import free_port
from tests.servers import Client, ServerProcess, client
from watchword.v1 import token_service_pb2 as pb
from watchword_server.data_folder import POSTGRES_SOCKET
from watchword_server.embedded.postgres import DATABASE
from watchword_server.keyring import Keyring
from watchword_server.store import migrate

LEASE_SECONDS: Final = 2.0
STARTS_MAX: Final = 5
POSTGRES: Final = "postgres"
EXTRA: Final = "extra"
"""The owner of the wires of verifiers that a test adds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a fleet consists of."""

    replicas: tuple[str, ...] = ("r0", "r1")
    workers: int = 1
    """Processes of the last replica; the others are one each."""
    aio: int = 1
    threads: int = 1
    """Verifiers on each stack."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A verifier to be started."""

    name: str
    stack: str
    """`aio` or `threads`."""
    defect: str = ""
    balanced: bool = False


class Replica:
    """One `watchword serve`, under an address that it keeps, and with somebody who starts it again."""

    def __init__(self, name: str, server: ServerProcess, address: str, *, workers: int) -> None:
        self.name = name
        self.server = server
        self.address = address
        self._workers = workers

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        try:
            return psutil.Process(self.server.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def start(self) -> None:
        """Until all of it serves. It may give up while the database is away: then it is started again."""
        for _ in range(STARTS_MAX - 1):
            try:
                self._start()
            except AssertionError:
                continue
            return
        self._start()

    def _start(self) -> None:
        self.server.start()
        if self._workers > 1:
            self.server.wait_for_log(re.compile(r"by \d+ workers"))


class Fleet:
    """Started as a context manager. `logs` is where all verifiers write."""

    def __init__(self, folder: Path, logs: Path, shape: Shape) -> None:
        self.logs = logs
        self.shape = shape
        self.postgres = Postgres(folder / "data")
        self.replicas: dict[str, Replica] = {}
        self.verifiers: dict[str, Program] = {}
        self.addresses: dict[str, str] = {}
        """Where each verifier's service is."""
        self.admin_token_file = folder / "admin-token"
        self._verifier_token_file = folder / "verifier-token"
        self._keyring_file = folder / "keyring"
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._proxy = Program("tests.history.proxy", {}, logs / "proxy.stderr")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.postgres)
            migrate.upgrade(self.postgres.dsn)
            self._make_replicas()
            stack.callback(self._proxy.stop)
            self._proxy.configuration = {"links": self._links()}
            self._ports = self._proxy.start()
            stack.callback(self._stop_replicas)
            self._start_replicas()
            stack.callback(self._stop_verifiers)
            self._start_verifiers()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    # ---- for whoever breaks it ---------------------------------------------------------------------------------------

    def links_of(self, name: str) -> list[str]:
        """The wires of a verifier or replica to what it depends on."""
        return [link for link in self._ports if link.partition("-")[0] == name]

    def break_link(self, link: str, mode: str) -> None:
        """Sets a mode of the proxy."""
        self._proxy.tell({"link": link, "mode": mode})

    @contextmanager
    def admin(self, replica: str) -> Iterator[Client]:
        """The administrator's client at one replica."""
        with client(self.replicas[replica].address, self.admin_token_file.read_text("ascii")) as made:
            yield made

    def add_verifiers(self, *wanted: Verifier, logs: Path | None = None) -> None:
        """Starts these. Those beyond the shape share the wires of `EXTRA`."""
        logs = logs or self.logs
        names = list(self.replicas)
        for number, one in enumerate(wanted):
            wires = self._wires_of(one.name)
            # They begin at different replicas.
            turn = number % len(names)
            configuration = Configuration(
                name=one.name,
                stack=one.stack,
                targets=tuple(f"127.0.0.1:{wires[name]}" for name in (*names[turn:], *names[:turn])),
                balanced=one.balanced,
                token_file=str(self._verifier_token_file),
                log_file=str(logs / f"{one.name}.jsonl"),
                lease_seconds=LEASE_SECONDS,
                defect=one.defect,
            )
            errors = logs / f"{one.name}.stderr"
            self.verifiers[one.name] = Program("tests.history.verifier_process", asdict(configuration), errors)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start_verifier, [one.name for one in wanted]))

    def restart_verifiers(self) -> None:
        """Starts all of them anew."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda program: program.start(), self.verifiers.values()))

    def retire(self, *names: str) -> None:
        """Ends verifiers for good."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.verifiers[name].stop(), names))
        for name in names:
            del self.verifiers[name], self.addresses[name]

    @contextmanager
    def defective_replica(self) -> Iterator[str]:
        """One more replica, which waits for nobody; its address. No verifier watches there."""
        environment = {**self._environment(f"127.0.0.1:{free_port()}", workers=1), "PYTHONPATH": str(ROOT)}
        environment["WATCHWORD_DATABASE_URL"] = self.postgres.dsn
        folder = self._folder / "defective"
        folder.mkdir()
        command = (sys.executable, "-m", "tests.history.defective_server")
        with ServerProcess(folder, environment, command=command) as server:
            yield server.address

    # ---- the pieces --------------------------------------------------------------------------------------------------

    def verifier_names(self) -> list[tuple[str, str]]:
        """Names and stacks of the shape's verifiers."""
        return [
            *((f"aio{number}", "aio") for number in range(self.shape.aio)),
            *((f"threads{number}", "threads") for number in range(self.shape.threads)),
        ]

    def _wires_of(self, verifier: str) -> dict[str, int]:
        shaped = {name for name, _ in self.verifier_names()}
        owner = verifier if verifier in shaped else EXTRA
        return {replica: self._ports[f"{owner}-{replica}"] for replica in self.replicas}

    def _links(self) -> dict[str, str]:
        owners = [*(name for name, _ in self.verifier_names()), EXTRA]
        links = {f"{owner}-{replica.name}": replica.address for owner in owners for replica in self.replicas.values()}
        socket_path = str(self.postgres.data_dir / POSTGRES_SOCKET)
        return links | {f"{replica}-{POSTGRES}": socket_path for replica in self.replicas}

    def _make_replicas(self) -> None:
        _keep_secret(self._keyring_file, Keyring.generate().dump())
        for name in self.shape.replicas:
            folder = self._folder / name
            folder.mkdir()
            address = f"127.0.0.1:{free_port()}"
            workers = self.shape.workers if name == self.shape.replicas[-1] else 1
            server = ServerProcess(folder, self._environment(address, workers=workers))
            self.replicas[name] = Replica(name, server, address, workers=workers)

    def _environment(self, address: str, *, workers: int) -> dict[str, str]:
        return {
            "WATCHWORD_KEYRING_FILE": str(self._keyring_file),
            "WATCHWORD_LISTEN": address,
            "WATCHWORD_METRICS_LISTEN": "",
            "WATCHWORD_LEASE_SECONDS_MAX": str(LEASE_SECONDS),
            "WATCHWORD_DRAIN_GRACE_SECONDS": "5",
            "WATCHWORD_USAGE_INTERVAL_SECONDS": str(USAGE_INTERVAL_SECONDS),
            "WATCHWORD_WORKERS": str(workers),
        }

    def _start_replicas(self) -> None:
        for replica in self.replicas.values():
            port = self._ports[f"{replica.name}-{POSTGRES}"]
            replica.server.environment["WATCHWORD_DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{port}/{DATABASE}"
        first = next(iter(self.replicas.values()))
        made = first.server.run("bootstrap", "--quiet")
        assert made.returncode == 0, made.stderr
        _keep_secret(self.admin_token_file, made.stdout.strip())
        start_all(self.replicas.values())
        with self.admin(first.name) as admin:
            catalogue = pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=SCOPE)])
            admin.tokens.RegisterScopes(catalogue, metadata=admin.metadata, timeout=30)
            request = pb.IssueRequest(subject=AUDIENCE, audiences=["watchword"], scopes=["watchword.validate"])
            _keep_secret(
                self._verifier_token_file, admin.tokens.Issue(request, metadata=admin.metadata, timeout=30).secret
            )

    def _stop_replicas(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda replica: replica.server.stop(), self.replicas.values()))
        for replica in self.replicas.values():
            (self.logs / f"{replica.name}.log").write_text("".join(replica.server.log))

    def _start_verifier(self, name: str) -> None:
        program = self.verifiers[name]
        port = program.start()["port"]
        self.addresses[name] = f"127.0.0.1:{port}"
        # It comes back under the same address.
        program.configuration = {**program.configuration, "port": port}

    def _start_verifiers(self) -> None:
        shaped = self.verifier_names()
        # The last one's answers come from another replica than its changes, every other time.
        self.add_verifiers(*(Verifier(name, stack, balanced=(name, stack) == shaped[-1]) for name, stack in shaped))

    def _stop_verifiers(self) -> None:
        self.retire(*self.verifiers)


def start_all(replicas: Iterable[Replica]) -> None:
    """All at once, until all serve."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda replica: replica.start(), replicas))


@contextmanager
def fleet(shape: Shape, *, logs: Path | None = None) -> Iterator[Fleet]:
    """A fleet in a folder of its own that goes with it; not in pytest's, as PostgreSQL's socket needs a short path."""
    with tempfile.TemporaryDirectory(prefix="wwh", ignore_cleanup_errors=True) as folder:
        kept = logs or Path(folder) / "logs"
        kept.mkdir(exist_ok=True)
        with Fleet(Path(folder), kept, shape) as made:
            yield made


def _keep_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
