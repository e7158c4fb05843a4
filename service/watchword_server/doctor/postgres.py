"""The database server itself: version, clock, and what survives a crash."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from watchword_server.doctor.finding import Finding
from watchword_server.store.migrate import POSTGRES_MAX, POSTGRES_MIN

_CLOCK_SAMPLES: Final = 5
_SKEW_MAX: Final = timedelta(seconds=1)


async def check_server(connection: asyncpg.Connection) -> list[Finding]:
    """Its version, and that it takes writes."""
    name, major = connection.get_settings().server_version, connection.get_server_version().major
    message = f"PostgreSQL {name}"
    needed = f"{POSTGRES_MIN} to {POSTGRES_MAX}"
    if major < POSTGRES_MIN:
        too_old = f"{message} is too old: Watchword needs {needed}"
        return [Finding("database", "fail", too_old, f"Move the database to PostgreSQL {needed}.")]
    if major > POSTGRES_MAX:
        finding = Finding("database", "warn", f"{message}: not tested", f"{POSTGRES_MAX} is the newest tested.")
    else:
        finding = Finding("database", "ok", message)
    if not await connection.fetchval("select pg_is_in_recovery()"):
        return [finding]
    return [
        finding,
        Finding(
            "primary",
            "fail",
            "this is a standby: it takes no writes",
            "Name the primary, or all hosts with target_session_attrs=read-write, in WATCHWORD_DATABASE_URL.",
        ),
    ]


async def check_clock(connection: asyncpg.Connection) -> Finding:
    """How far this machine's clock is from the database's, within half a round trip."""
    best: tuple[timedelta, timedelta] | None = None
    for _ in range(_CLOCK_SAMPLES):
        asked_at, asked_at_seconds = datetime.now(UTC), time.monotonic()
        there: datetime = await connection.fetchval("select clock_timestamp()")
        round_trip = timedelta(seconds=time.monotonic() - asked_at_seconds)
        if best is None or round_trip / 2 < best[1]:
            best = there - (asked_at + round_trip / 2), round_trip / 2
    assert best is not None
    return judge_clock(*best)


def judge_clock(skew: timedelta, uncertainty: timedelta) -> Finding:
    """`skew` is the database's clock minus ours, true to plus or minus `uncertainty`."""
    message = (
        f"the database's clock is {skew.total_seconds():+.3f} s from ours (within {uncertainty.total_seconds():.3f} s)"
    )
    if abs(skew) - uncertainty <= _SKEW_MAX:
        return Finding("clock", "ok", message)
    return Finding(
        "clock",
        "warn",
        message + "; it alone judges expiry, so tokens are safe, but logs disagree and certificates may be misjudged",
        "Synchronise both machines (chrony, systemd-timesyncd).",
    )


async def check_durability(connection: asyncpg.Connection, *, embedded: bool) -> list[Finding]:
    """What an acknowledged Issue or Revoke survives."""
    row = await connection.fetchrow(
        "select current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,"
        " current_setting('synchronous_commit') as synchronous_commit,"
        " current_setting('synchronous_standby_names') as standby_names,"
        " (select count(*) from pg_stat_replication) as standbys"
    )
    assert row is not None
    findings = []
    for name in ("fsync", "full_page_writes"):
        if row[name] == "on":
            findings.append(Finding(name, "ok", "on"))
        else:
            findings.append(
                Finding(name, "fail", "off: a power failure may corrupt the database", f"alter system set {name} = on;")
            )
    findings.append(
        judge_replication(row["synchronous_commit"], row["standby_names"], row["standbys"], embedded=embedded)
    )
    return findings


def judge_replication(synchronous_commit: str, standby_names: str, standbys: int, *, embedded: bool) -> Finding:
    """What the two settings mean for acknowledged writes, given how many standbys are connected."""
    check = "replication"
    if synchronous_commit == "off":
        return Finding(
            check,
            "fail",
            "synchronous_commit is off: a crash forgets acknowledged revocations",
            "alter role ... set synchronous_commit = on; (for the serving role)",
        )
    if standby_names and synchronous_commit in ("local",):
        return Finding(
            check,
            "warn",
            f"synchronous_commit is local: writes do not wait for the standbys ({standby_names}), so a fail-over may "
            "bring revoked tokens back to life",
            "alter role ... set synchronous_commit = on; (for the serving role)",
        )
    if standby_names:
        return Finding(
            check, "ok", f"an acknowledged write is on a standby too ({synchronous_commit}: {standby_names})"
        )
    if standbys:
        return Finding(
            check,
            "warn",
            f"{standbys} standby connected, none synchronous: a fail-over may forget the last acknowledged writes, "
            "and so bring revoked tokens back to life",
            "alter system set synchronous_standby_names = 'ANY 1 (*)'; select pg_reload_conf();",
        )
    where = "the data folder" if embedded else "its disk"
    return Finding(
        check, "ok", f"one machine: an acknowledged write survives a crash, not the loss of {where}; back it up"
    )
