"""Kill -9 under load: whatever was acknowledged is there afterwards, and whatever was not is whole or not there."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import running_watchword
from tests.faults.load import ACKNOWLEDGED_SECONDS_MAX, check_nothing_was_lost, load
from tests.servers import ServerProcess, client

REVOCATIONS = 60
RECOVERY_SECONDS_MAX = 60


@pytest.fixture
def embedded() -> Iterator[ServerProcess]:
    """A server with a PostgreSQL of its own."""
    # Not in pytest's folder: PostgreSQL's socket needs a short path.
    with (
        tempfile.TemporaryDirectory(prefix="ww", ignore_cleanup_errors=True) as folder,
        ServerProcess(Path(folder), {}) as server,
    ):
        yield server


def admin_token(server: ServerProcess) -> str:
    return (server.data_dir / "admin-token").read_text("ascii").strip()


def embedded_dsn(server: ServerProcess) -> str:
    return f"postgresql://postgres@/watchword?host={quote(str(server.data_dir / 'postgres'), safe='')}"


def kill_postgres(server: ServerProcess) -> None:
    """The postmaster first, so that it does not begin to recover, and then everything it started."""
    pid = int((server.data_dir / "postgres" / "postmaster.pid").read_text("ascii").splitlines()[0])
    postmaster = psutil.Process(pid)
    started = postmaster.children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    for process in started:
        if process.is_running():
            process.kill()
    _, alive = psutil.wait_procs([postmaster, *started], timeout=RECOVERY_SECONDS_MAX)
    assert alive == []


def test_acknowledged_writes_survive_the_servers_death(dsn: str) -> None:
    with running_watchword(dsn) as running:
        with load(running.address, running.admin_token) as told:
            told.wait_for_revocations(REVOCATIONS)
            running.server.signal(signal.SIGKILL)
            assert running.server.wait() == -signal.SIGKILL
        running.server.start()
        with client(running.address, running.admin_token) as admin:
            check_nothing_was_lost(told, admin, dsn)


def test_acknowledged_writes_survive_the_death_of_a_server_with_its_embedded_database(embedded: ServerProcess) -> None:
    token = admin_token(embedded)
    with load(embedded.address, token) as told:
        told.wait_for_revocations(REVOCATIONS)
        embedded.signal(signal.SIGKILL)
        assert embedded.wait() == -signal.SIGKILL
    embedded.start()
    assert admin_token(embedded) == token
    with client(embedded.address, token) as admin:
        check_nothing_was_lost(told, admin, embedded_dsn(embedded))


def test_acknowledged_writes_survive_the_embedded_databases_death_and_it_comes_back_by_itself(
    embedded: ServerProcess,
) -> None:
    token = admin_token(embedded)
    with grpc.insecure_channel(embedded.address) as channel:
        # A stream of changes: no need to ask again and again.
        health = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=ACKNOWLEDGED_SECONDS_MAX + RECOVERY_SECONDS_MAX
        )
        states = (answer.status for answer in health)
        assert next(states) == health_pb2.HealthCheckResponse.SERVING
        with load(embedded.address, token) as told:
            told.wait_for_revocations(REVOCATIONS)
            kill_postgres(embedded)
            assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert next(states) == health_pb2.HealthCheckResponse.SERVING
        health.cancel()
    with client(embedded.address, token) as admin:
        check_nothing_was_lost(told, admin, embedded_dsn(embedded))
