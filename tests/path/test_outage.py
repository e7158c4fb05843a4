"""The database goes away and comes back: said honestly, and no restart."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import conninfo, sql

from tests.conftest import running_watchword
from tests.path.party import Party, administrator, refused, unique
from tests.path.test_access import METHODS, REQUESTS
from tests.servers import ServerProcess
from watchword.v1 import token_service_pb2 as pb

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def data_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="ww") as folder:
        yield Path(folder) / "data"


@contextmanager
def shut_out(dsn: str) -> Iterator[None]:
    """Ends all connections to a database and lets in nobody, as far as its users can tell: it is down."""
    name = conninfo.conninfo_to_dict(dsn)["dbname"]
    assert isinstance(name, str)
    elsewhere = dsn.replace(f"/{name}", "/postgres", 1)
    with psycopg.connect(elsewhere, autocommit=True) as server:
        server.execute(sql.SQL("alter database {} allow_connections false").format(sql.Identifier(name)))
        server.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        try:
            yield
        finally:
            server.execute(sql.SQL("alter database {} allow_connections true").format(sql.Identifier(name)))


def health(channel: grpc.Channel) -> Generator[int]:
    """What it says from now on, each change once; fails when a change takes a minute."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    try:
        for answer in watch:
            yield answer.status
    finally:
        watch.cancel()


def wait_for_health(channel: grpc.Channel, wanted: int) -> None:
    """Until health says so."""
    with closing(health(channel)) as said:
        assert wanted in said


@TRANSPORTS
def test_without_its_database_it_says_so_and_recovers_by_itself(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport) as running:
        admin = administrator(running)
        issued = admin.issue(unique())
        pid = running.server.pid
        with shut_out(dsn):
            wait_for_health(admin.channel, NOT_SERVING)
            for path in METHODS:
                answer = refused(admin.send, path, REQUESTS[path].SerializeToString())
                assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                assert answer.retry_seconds is not None
                assert answer.retry_seconds > 0
                assert "postgresql://" not in answer.message
            # What needs no database is still told apart.
            assert refused(admin.send, METHODS[0], b"", metadata=()).reason == "TOKEN_MISSING"
        wait_for_health(admin.channel, SERVING)
        assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_LIVE
        assert admin.issue(unique()).secret
        assert admin.revoke(token=issued.secret).revoked_count == 1
        assert running.server.pid == pid


@TRANSPORTS
def test_connections_that_died_while_idle_cost_no_check(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport) as running:
        admin = administrator(running)
        for _ in range(3):
            admin.batch("nonsense")
            with psycopg.connect(dsn, autocommit=True) as database:
                database.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            assert admin.verdict("nonsense") == "inactive"


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_killed_embedded_postgres_is_started_again_with_all_that_was_acknowledged(
    transport: str,
) -> None:
    with (
        data_folder() as folder,
        ServerProcess(folder, {"WATCHWORD_TRANSPORT": transport}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        admin = Party(channel, (folder / "admin-token").read_text().strip())
        kept, gone = admin.issue(unique()), admin.issue(unique())
        admin.revoke(token=gone.secret)
        postmaster = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        with closing(health(channel)) as states:
            # Listened to before: it may be back within a second.
            assert next(states) == SERVING
            os.kill(postmaster, signal.SIGKILL)
            assert [next(states), next(states)] == [NOT_SERVING, SERVING]
        assert admin.record(kept.token.token_id).state == pb.TOKEN_STATE_LIVE
        assert admin.record(gone.token.token_id).state == pb.TOKEN_STATE_REVOKED
        assert admin.issue(unique()).secret
        assert int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0]) != postmaster


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Stops every process of the PostgreSQL in a folder: it takes connections, and says nothing."""
    postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().splitlines()[0]))
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_a_database_that_says_nothing_is_told_by_health_and_metrics() -> None:
    with (
        data_folder() as folder,
        ServerProcess(folder, {}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        up = re.compile(r"^watchword_database_up ([01])", re.MULTILINE)
        url = next(match[1] for line in server.log if (match := re.search(r"metrics on (http://\S+/metrics)", line)))

        def metric() -> str:
            with urllib.request.urlopen(url, timeout=30) as response:
                match = up.search(response.read().decode())
            assert match is not None
            return match[1]

        wait_for_health(channel, SERVING)
        assert metric().startswith("1")
        with frozen(folder / "postgres"):
            wait_for_health(channel, NOT_SERVING)
            assert metric().startswith("0")
        wait_for_health(channel, SERVING)
        assert metric().startswith("1")


@TRANSPORTS
def test_a_database_that_hangs_is_unavailable_and_not_waited_for(dsn: str, transport: str) -> None:
    limits = {"WATCHWORD_STATEMENT_TIMEOUT_SECONDS": "0.2", "WATCHWORD_LOOKUP_TIMEOUT_SECONDS": "0.2"}
    with running_watchword(dsn, transport=transport, **limits) as running:
        admin = administrator(running)
        for table, paths in (
            ("scopes", ["/watchword.v1.TokenService/ListScopes"]),
            ("audit_events", ["/watchword.v1.AuditService/ListEvents"]),
            # The callers' own tokens: nothing can be answered.
            ("tokens", ["/watchword.v1.TokenService/Validate", "/watchword.v1.TokenService/Issue"]),
        ):
            with psycopg.connect(dsn) as database:
                database.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(table)))
                for path in paths:
                    answer = refused(admin.send, path, REQUESTS[path].SerializeToString())
                    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                    assert answer.retry_seconds
        assert admin.list_tokens(pb.ListTokensRequest()).tokens
        assert admin.list_scopes(pb.ListScopesRequest()).scopes
