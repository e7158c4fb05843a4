"""What doctor says of a keyring's versions: which are needed, until when, and who lacks one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import psycopg
import pytest

from tests.databases import Databases
from watchword_server.doctor.finding import Finding
from watchword_server.doctor.peppers import check_peppers, judge_server, judge_version
from watchword_server.doctor.stored import check_retention, judge_retention
from watchword_server.keyring import Keyring
from watchword_server.settings import Settings
from watchword_server.store import peppers
from watchword_server.store.database import Database, query
from watchword_server.store.partitions import AttachedPartition, Partition
from watchword_server.store.peppers import PepperUse, ServerPeppers

ENDS_AT = datetime(2027, 2, 1, 12, tzinfo=UTC)
ONE = Keyring.generate()
BOTH = Keyring(1, {**ONE.peppers, 2: Keyring.generate().peppers[1]})
TURNED = Keyring(2, BOTH.peppers)
ROW = (
    "insert into tokens (id, created_at, expires_at, revoked_at, idle_expires_at, pepper_version, digest, subject,"
    " audiences, scopes) values (%s, now(), now() + %s, %s, now() + %s, %s, '', '', '{}', '{}')"
)
LIFE = timedelta(days=20)


@pytest.mark.parametrize(
    ("version", "use", "known", "says"),
    [
        (1, PepperUse(0, None), True, "no live token needs it; it can go now: watchword keyring drop-version 1"),
        (1, PepperUse(1, ENDS_AT), True, "1 live token needs it; it can go after 2027-02-01 12:00 UTC"),
        (1, PepperUse(9, ENDS_AT), True, "9 live tokens need it; it can go after 2027-02-01 12:00 UTC"),
        (1, None, True, "live tokens need it, too many to count here; it has to stay"),
        (2, PepperUse(9, ENDS_AT), True, "9 live tokens need it; new ones are stored with it"),
        (2, PepperUse(0, None), False, "no live token needs it; new ones are stored with it"),
        (3, PepperUse(0, None), False, "no live token needs it; no server has started with it yet"),
        (
            3,
            PepperUse(0, None),
            True,
            "no live token needs it; when every server has it: watchword keyring make-current 3",
        ),
        (3, PepperUse(2, ENDS_AT), True, "2 live tokens need it; it can go after 2027-02-01 12:00 UTC"),
    ],
)
def test_version(version: int, use: PepperUse | None, known: bool, says: str) -> None:
    assert judge_version(version, 2, use, known=known) == Finding(f"keyring version {version}", "ok", says)


@pytest.mark.parametrize(
    ("has", "says", "remedy"),
    [
        ([1], ["lacks version 2 and cannot check"], "before `watchword keyring make-current 2`"),
        ([2, 1], ["stores new tokens with version 2, and 1 is current here"], "before version 2 is dropped"),
        ([3, 1, 2], ["has version 3", "stores new tokens with version 3"], "The keyring here is older"),
        ([2], ["lacks version 1", "stores new tokens with version 2"], "Bring this keyring to it and restart it."),
    ],
)
def test_server_that_has_another_keyring(has: list[int], says: list[str], remedy: str) -> None:
    [finding] = judge_server(ServerPeppers("one:7", has), BOTH)
    assert (finding.check, finding.status) == ("keyring", "warn")
    assert all(part in finding.message for part in ["one:7", *says])
    assert remedy in finding.remedy


@pytest.mark.parametrize("has", [None, [1, 2]])
def test_server_that_has_the_same_or_does_not_tell_is_no_finding(has: list[int] | None) -> None:
    assert judge_server(ServerPeppers("one", has), BOTH) == []


async def test_tokens_are_counted_until_they_end(dsn: str) -> None:
    """Those that are revoked, expired, idle for too long, or beyond the end in their id, need nothing."""
    now = datetime.now(UTC)
    database = await Database.open(dsn, pool_size_max=1)
    await peppers.check_peppers(database, {version: BOTH.check_value(version) for version in BOTH.peppers})
    await database.close()
    with psycopg.connect(dsn, autocommit=True) as plain:
        plain.execute("create table tokens_all partition of tokens for values from (minvalue) to (maxvalue)")
        future, past = (Partition("tokens", now, now + length).upper_bound.int for length in (LIFE, -LIFE))
        zero = timedelta()
        for number, (at, life, revoked_at, idle) in enumerate(
            [
                (future, LIFE, None, None),
                (future, LIFE / 2, None, LIFE),
                (future, LIFE, now, None),
                (future, zero, None, None),
                (future, LIFE, None, zero),
                (past, LIFE, None, None),
            ]
        ):
            plain.execute(ROW.encode(), [f"{at + number:032x}", life, revoked_at, idle, 1])
        (last,) = plain.execute("select max(expires_at) from tokens where revoked_at is null").fetchone() or (None,)
    assert isinstance(last, datetime)
    connection = await asyncpg.connect(dsn)
    found = {one.check: one for one in await check_peppers(connection, TURNED)}
    assert found["keyring version 1"].message == f"2 live tokens need it; it can go after {last:%Y-%m-%d %H:%M} UTC"
    assert found["keyring version 2"].message == "no live token needs it; new ones are stored with it"
    [gone] = await check_peppers(connection, Keyring(2, {2: BOTH.peppers[2]}))
    assert (gone.status, gone.message) == ("fail", "live tokens need version 1, which the keyring lacks")
    [wrong] = await check_peppers(connection, Keyring(1, {1: BOTH.peppers[2]}))
    assert (wrong.status, "not the key" in wrong.message) == ("fail", True)
    await connection.close()


async def test_what_cannot_be_counted_in_time_has_to_stay(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peppers, "COUNT_SECONDS_MAX", 0.05)
    connection = await asyncpg.connect(dsn)
    with psycopg.connect(dsn) as blocker:
        blocker.execute("lock table tokens in access exclusive mode")
        assert await peppers.pepper_use(connection, 1) is None
    assert await peppers.pepper_use(connection, 1) == PepperUse(0, None)
    await connection.close()


def test_version_that_no_token_needs_is_known_without_reading_the_tokens(postgres: Databases) -> None:
    with postgres.fresh() as dsn, psycopg.connect(dsn, autocommit=True) as plain:
        plain.execute("create table tokens_all partition of tokens for values from (minvalue) to (maxvalue)")
        plain.execute(
            "insert into tokens (id, created_at, expires_at, pepper_version, digest, subject, audiences, scopes)"
            " select (lpad(to_hex(2000000000000 + n), 12, '0') || repeat('8', 20))::uuid, now(), 'infinity', 2,"
            " sha256(n::text::bytea), '', '{}', '{}' from generate_series(1, 20000) as n"
        )
        plain.execute("vacuum analyze tokens")
        for name in ("pepper_needed", "pepper_use"):
            statement = query(name).replace("$1", "1")
            plan = plain.execute(f"explain (analyze, buffers, format json) {statement}".encode()).fetchone()
            assert plan is not None
            root = plan[0][0]["Plan"]
            assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < 50, (name, root)


def partition(name: str, ended_ago: timedelta) -> AttachedPartition:
    ends_at = datetime.now(UTC) - ended_ago
    return AttachedPartition("tokens", name, ends_at - LIFE, ends_at)


def test_what_is_kept_too_long_is_told_with_who_drops_it() -> None:
    assert judge_retention([]).status == "ok"
    ours, hand = partition("tokens_20270101", LIFE), partition("january", LIFE)
    assert "put off" in judge_retention([ours]).remedy
    assert "yourself" in judge_retention([hand, ours]).remedy
    assert judge_retention([hand, ours]).message == "january is past its retention and still there, and 1 more"


async def test_retention_is_judged_a_day_after_it_is_over(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    settings = Settings(expired_tokens_kept_days=30)
    with psycopg.connect(dsn, autocommit=True) as plain:
        for hours, status in ((1, "ok"), (-1, "warn")):
            ends_at = datetime.now(UTC) - timedelta(days=31) + timedelta(hours=hours)
            upper = Partition("tokens", ends_at, ends_at).upper_bound
            plain.execute(f"create table old partition of tokens for values from (minvalue) to ('{upper}')".encode())
            assert [one.status for one in await check_retention(connection, settings)] == [status]
            plain.execute("drop table old")
    await connection.close()
