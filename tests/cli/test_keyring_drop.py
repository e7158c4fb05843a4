"""`keyring drop-version` takes out what nothing needs, and asks the database before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.cli.conftest import CommandLine
from watchword_server.keyring import Keyring
from watchword_server.store.database import Database
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.fleet_contract import NewReplica
from watchword_server.store.partitions import Partition
from watchword_server.store.peppers import PepperMismatchError, check_peppers

RING = Keyring(2, {1: Keyring.generate().peppers[1], 2: Keyring.generate().peppers[1]})
ENDS_IN = timedelta(days=20)


@pytest.fixture
def file(offline: CommandLine, tmp_path: Path, dsn: str) -> Path:
    path = tmp_path / "keyring.json"
    path.write_text(RING.dump())
    path.chmod(0o600)
    offline.environment |= {"WATCHWORD_KEYRING_FILE": str(path), "WATCHWORD_DATABASE_URL": dsn}
    return path


def on_database(dsn: str, work: Callable[[Database], object]) -> None:
    async def run() -> None:
        database = await Database.open(dsn, pool_size_max=2)
        try:
            await work(database)  # type: ignore[misc]  # what comes back is awaited and thrown away
        finally:
            await database.close()

    asyncio.run(run())


def check_values(file: Path) -> dict[int, bytes]:
    keyring = Keyring.load(file.read_text())
    return {version: keyring.check_value(version) for version in keyring.peppers}


def versions(file: Path) -> list[int]:
    return sorted(Keyring.load(file.read_text()).peppers)


def test_version_that_nothing_needs_is_dropped(offline: CommandLine, file: Path) -> None:
    ended = offline("keyring", "drop-version", "1")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert versions(file) == [2]
    assert file.stat().st_mode & 0o777 == 0o600


def test_number_of_a_dropped_key_is_never_given_again(offline: CommandLine, file: Path, dsn: str) -> None:
    old_copy = file.read_text()
    on_database(dsn, lambda database: check_peppers(database, check_values(file)))
    for command in (["add-version"], ["drop-version", "3"], ["make-current", "1"], ["drop-version", "2"]):
        ended = offline("keyring", *command)
        assert ended.returncode == 0, ended.stderr
        on_database(dsn, lambda database: check_peppers(database, check_values(file)))
    assert offline("keyring", "add-version").returncode == 0
    assert versions(file) == [1, 4]
    # An old copy cannot know of what came after it. The database does, and a server does not start with another key.
    file.write_text(old_copy)
    assert offline("keyring", "add-version").returncode == 0
    with pytest.raises(PepperMismatchError, match=r"version 3 .* a new key needs a version number of its own"):
        on_database(dsn, lambda database: check_peppers(database, check_values(file)))
    for command in (["add-version"], ["drop-version", "3", "--force"]):
        assert offline("keyring", *command).returncode == 0
    assert versions(file) == [1, 2, 4]


def test_print_leaves_the_file_as_it_is(offline: CommandLine, file: Path) -> None:
    ended = offline("keyring", "drop-version", "1", "--print")
    assert ended.returncode == 0
    assert sorted(Keyring.load(ended.stdout).peppers) == [2]
    assert versions(file) == [1, 2]


def test_version_that_a_live_token_needs_stays(offline: CommandLine, file: Path, dsn: str) -> None:
    ends_at = datetime.now(UTC) + ENDS_IN
    with psycopg.connect(dsn, autocommit=True) as plain:
        plain.execute("create table everything partition of tokens for values from (minvalue) to (maxvalue)")
        plain.execute(
            "insert into tokens (id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes)"
            " values (%s, now(), %s, 1, '', '', '{}', '{}')",
            [Partition("tokens", ends_at, ends_at + ENDS_IN).upper_bound, ends_at],
        )
        ended = offline("keyring", "drop-version", "1")
        assert ended.returncode == 6
        assert f"1 live token needs version 1, the last of them until {ends_at:%Y-%m-%d %H:%M} UTC" in ended.stderr
        assert versions(file) == [1, 2]
        plain.execute("update tokens set revoked_at = now()")
        assert offline("keyring", "drop-version", "1").returncode == 0
        assert versions(file) == [2]


def test_version_that_a_server_stores_tokens_with_stays(offline: CommandLine, file: Path, dsn: str) -> None:
    async def joined(database: Database) -> None:
        fleet = PostgresFleet(database, pepper_versions=[1, 2])
        assert await fleet.join(NewReplica(uuid4(), await fleet.epoch(), "one:7600", 60))
        await fleet.close()

    on_database(dsn, joined)
    ended = offline("keyring", "drop-version", "1")
    assert ended.returncode == 6
    assert "the server one:7600 still stores new tokens with version 1" in ended.stderr
    with psycopg.connect(dsn, autocommit=True) as plain:
        # Its lease is over: it stores nothing.
        plain.execute("update replicas set renewed_at = now() - interval '61 s'")
    assert offline("keyring", "drop-version", "1").returncode == 0


def test_database_of_another_keyring_is_not_believed(offline: CommandLine, file: Path, dsn: str) -> None:
    other = Keyring.generate()
    on_database(dsn, lambda database: check_peppers(database, {1: other.check_value(1)}))
    ended = offline("keyring", "drop-version", "1")
    assert ended.returncode == 78
    assert "version 1 of this database is another key" in ended.stderr
    assert versions(file) == [1, 2]


def test_without_a_database_nothing_is_dropped_unless_forced(offline: CommandLine, file: Path) -> None:
    offline.environment["WATCHWORD_DATABASE_URL"] = "postgresql://u:canary@127.0.0.1:1/none"
    ended = offline("keyring", "drop-version", "1")
    assert ended.returncode == 3
    assert "canary" not in ended.stderr
    del offline.environment["WATCHWORD_DATABASE_URL"]
    ended = offline("keyring", "drop-version", "1")
    assert (ended.returncode, "--force" in ended.stderr) == (78, True)
    assert not (Path(offline.environment["WATCHWORD_DATA_DIR"]) / "postgres").exists()
    assert versions(file) == [1, 2]
    assert offline("keyring", "drop-version", "1", "--force").returncode == 0
    assert versions(file) == [2]


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize(("version", "code"), [("2", 6), ("9", 4)])
def test_current_and_unknown_versions_are_refused(
    offline: CommandLine, file: Path, version: str, code: int, force: list[str]
) -> None:
    assert offline("keyring", "drop-version", version, *force).returncode == code
    assert versions(file) == [1, 2]


def test_no_key_is_shown(offline: CommandLine, file: Path) -> None:
    keys = [text.split('"')[0] for text in file.read_text().split(': "')[1:]]
    shown = [offline("keyring", "drop-version", version) for version in ("2", "9", "1")]
    assert len(keys) == 2
    assert not any(key in one.stdout + one.stderr for key in keys for one in shown)
