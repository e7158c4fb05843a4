"""The first start, the second, and two at once."""

from __future__ import annotations

import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psycopg
import pytest

from tests.databases import Databases
from tests.path.locks import wait_for_waiting
from tests.path.party import Party, refused, unique
from tests.path.test_outage import data_folder
from tests.servers import ServerProcess, keyring_file
from watchword.v1 import token_service_pb2 as pb
from watchword_server.keyring import Keyring


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_data_folder_is_all_that_a_first_start_needs(transport: str) -> None:
    with data_folder() as folder:
        environment = {"WATCHWORD_TRANSPORT": transport}
        with ServerProcess(folder, environment) as server, grpc.insecure_channel(server.address) as channel:
            token_file = folder / "admin-token"
            assert _mode(token_file) == 0o600
            assert _mode(folder / "keyring.json") == 0o600
            secret = token_file.read_text().strip()
            admin = Party(channel, secret)
            issued = admin.issue(unique())
            assert secret[25:] not in "".join(server.log)
            # The command line beside it finds the token by itself.
            shown = server.run("tokens", "show", issued.token.token_id)
            assert shown.returncode == 0, shown.stderr
            before = token_file.stat()
        with ServerProcess(folder, environment) as server, grpc.insecure_channel(server.address) as channel:
            after = token_file.stat()
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
            assert token_file.read_text().strip() == secret
            admin = Party(channel, secret)
            assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_LIVE
            administrators = admin.list_tokens(pb.ListTokensRequest(subject="admin", include_inactive=True)).tokens
            assert len(administrators) == 1


def _external(folder: Path, dsn: str, keyring: str) -> ServerProcess:
    folder.mkdir(parents=True)
    ring = keyring_file(folder, keyring)
    return ServerProcess(folder, {"WATCHWORD_DATABASE_URL": dsn, "WATCHWORD_KEYRING_FILE": str(ring)})


def test_two_upgrades_and_two_starts_at_once_do_not_collide(postgres: Databases, tmp_path: Path) -> None:
    keyring = Keyring.generate().dump()
    with postgres.fresh(migrated=False) as dsn, ThreadPoolExecutor(2) as pool:
        servers = [_external(tmp_path / name, dsn, keyring) for name in ("a", "b")]
        upgrades = list(pool.map(lambda server: server.run("db", "upgrade"), servers))
        assert [upgrade.returncode for upgrade in upgrades] == [0, 0], [upgrade.stderr for upgrade in upgrades]
        try:
            list(pool.map(ServerProcess.start, servers))
            boots = list(pool.map(lambda server: server.run("bootstrap", "--quiet"), servers))
            # One administrator is made, not two.
            (made,) = (boot.stdout.strip() for boot in boots if boot.returncode == 0)
            for server in servers:
                with grpc.insecure_channel(server.address) as channel:
                    assert Party(channel, made).issue(unique()).secret
        finally:
            for server in servers:
                server.stop()
        with psycopg.connect(dsn) as database:
            rows = database.execute("select count(*), count(distinct subject) from tokens").fetchone()
            assert rows == (3, 3)


def test_two_servers_answer_as_one(postgres: Databases, tmp_path: Path) -> None:
    keyring = Keyring.generate().dump()
    with postgres.fresh() as dsn:
        one, other = (_external(tmp_path / name, dsn, keyring) for name in ("a", "b"))
        secret = one.run("bootstrap", "--quiet").stdout.strip()
        with (
            one,
            other,
            grpc.insecure_channel(one.address) as here,
            grpc.insecure_channel(other.address) as there,
        ):
            admin, elsewhere = Party(here, secret), Party(there, secret)
            scope = f"{unique('s')}.read"
            admin.register(scope)
            verifier = Party(there, admin.issue("orders", ["watchword"], ["watchword.validate"]).secret)
            issued = elsewhere.issue(unique(), ["orders"], [scope], request_id="once")
            assert refused(admin.issue, unique(), request_id="once").metadata == {"token_id": issued.token.token_id}
            assert verifier.verdict(issued.secret, scope) == "active"
            position = admin.revoke(token=issued.secret).position
            answer = verifier.validate(issued.secret, scope)
            # No answer after the revocation returned is "active", whichever server gives it.
            assert answer.WhichOneof("verdict") == "inactive"
            assert answer.position.number >= position.number


def test_an_unmigrated_database_is_refused_with_what_to_do(postgres: Databases, tmp_path: Path) -> None:
    with postgres.fresh(migrated=False) as dsn:
        server = _external(tmp_path / "a", dsn, Keyring.generate().dump())
        ended = server.run("serve")
        assert ended.returncode != 0
        assert "watchword db upgrade" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_keyring_of_another_deployment_is_refused(dsn: str, tmp_path: Path) -> None:
    first = _external(tmp_path / "a", dsn, Keyring.generate().dump())
    assert first.run("bootstrap", "--quiet").returncode == 0
    other = _external(tmp_path / "b", dsn, Keyring.generate().dump()).run("serve")
    assert other.returncode != 0
    assert "pepper" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_server_that_cannot_join_the_others_yet_ends_when_it_is_asked_to(postgres: Databases, tmp_path: Path) -> None:
    """Its row waits, for a standby say: nothing says how long."""
    with postgres.fresh() as dsn, psycopg.connect(dsn) as database, ThreadPoolExecutor(1) as pool:
        server = _external(tmp_path / "one", dsn, Keyring.generate().dump())
        database.execute("select 1 from feed for update")
        starting = pool.submit(server.start)
        wait_for_waiting(dsn)
        server.signal(signal.SIGTERM)
        with pytest.raises(AssertionError, match="the server ended"):
            starting.result()
        assert "stopped before it served" in server.log[-1]
