"""What lies in the database: rights, the pepper's fingerprint, partitions for tokens to come, administrators."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

import asyncpg

from watchword_server.doctor.finding import Finding
from watchword_server.keyring import Keyring
from watchword_server.settings import Settings
from watchword_server.store.administrators import ENDS_SOON
from watchword_server.store.database import query
from watchword_server.store.partitions import covered_ranges, missing_partitions


async def check_privileges(connection: asyncpg.Connection) -> list[Finding]:
    """Whether the role of this connection may do what serving takes."""
    lacking: dict[str, list[str]] = {}
    for row in await connection.fetch(query("privileges")):
        lacking.setdefault(row["name"], []).append(row["privilege"])
    if not lacking:
        return []
    what = "; ".join(f"{', '.join(privileges)} on {name}" for name, privileges in lacking.items())
    return [
        Finding(
            "privileges",
            "fail",
            f"the serving role lacks {what}",
            "As the owner of the schema, run the grants in docs/operate.md, `Starting with an external database`.",
        )
    ]


async def check_peppers(connection: asyncpg.Connection, keyring: Keyring) -> list[Finding]:
    """Whether this keyring is the one that the stored tokens were hashed with."""
    known: dict[int, bytes] = {
        row["version"]: row["check_value"] for row in await connection.fetch(query("pepper_checks"))
    }
    needed = {row["version"] for row in await connection.fetch(query("pepper_versions_in_use"), sorted(known))}
    wrong = [
        version
        for version in sorted(known.keys() & keyring.peppers.keys())
        if not hmac.compare_digest(known[version], keyring.check_value(version))
    ]
    missing = sorted(needed - keyring.peppers.keys())
    if wrong:
        return [
            Finding(
                "keyring",
                "fail",
                f"version {_listed(wrong)} is not the key that this database's tokens were hashed with",
                "Use the keyring that belongs to this database; a new key needs a version number of its own.",
            )
        ]
    if missing:
        return [
            Finding(
                "keyring",
                "fail",
                f"live tokens need version {_listed(missing)}, which the keyring lacks",
                "Put that version back; without it these tokens cannot be checked.",
            )
        ]
    unused = sorted(keyring.peppers.keys() - needed - {keyring.current})
    spare = f"; no live token needs version {_listed(unused)}" if unused else ""
    return [Finding("keyring", "ok", f"version {keyring.current} is current and matches the database{spare}")]


async def check_partitions(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """Whether a token of the longest life could be stored now, and for one period to come."""
    now: datetime = await connection.fetchval("select now()")
    covered = await covered_ranges(connection)
    findings = []
    for parent, until in (("tokens", now + timedelta(seconds=settings.ttl_seconds_max)), ("audit_events", now)):
        missing = list(missing_partitions(parent, covered.get(parent, []), now, until, settings.partition_days))
        last = max((upper for _, upper in covered.get(parent, [])), default=None)
        if not missing:
            assert last is not None
            findings.append(Finding(f"partitions of {parent}", "ok", f"ready until {last:%Y-%m-%d}"))
            continue
        remedy = "A running server makes them: start it or look into its log for `partition`."
        urgent = missing[0].begins_at <= until
        what = (
            f"missing from {missing[0].begins_at:%Y-%m-%d}: what falls there cannot be stored"
            if urgent
            else f"the next one ({missing[0].begins_at:%Y-%m-%d}) is not there yet"
        )
        findings.append(Finding(f"partitions of {parent}", "fail" if urgent else "warn", what, remedy))
    return findings


async def check_administrators(connection: asyncpg.Connection) -> list[Finding]:
    """Until when somebody can still issue administrators."""
    row = await connection.fetchrow(query("administrators"))
    assert row is not None
    return [judge_administrators(row["last_ends_at"], row["read_at"])]


def judge_administrators(last_ends_at: datetime | None, now: datetime) -> Finding:
    """`last_ends_at`: when the last live administrator's token ends, None if there is none."""
    if last_ends_at is None:
        return Finding(
            "administrators", "fail", "there is no live administrator", "On the server's machine: watchword bootstrap"
        )
    left = last_ends_at - now
    message = f"the last administrator ends on {last_ends_at:%Y-%m-%d %H:%M} UTC"
    if left <= ENDS_SOON:
        return Finding(
            "administrators",
            "warn",
            f"{message}, in {max(left, timedelta()) // timedelta(hours=1)} hours",
            "Issue the next one now: docs/operate.md, `Administrators`.",
        )
    return Finding("administrators", "ok", message)


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
