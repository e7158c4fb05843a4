"""What lies in the database: rights, partitions for tokens to come, administrators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from watchword_server.doctor.finding import Finding
from watchword_server.settings import Settings
from watchword_server.store.administrators import ENDS_SOON
from watchword_server.store.database import query
from watchword_server.store.partitions import (
    AttachedPartition,
    attached_partitions,
    covered_ranges,
    missing_partitions,
    unaccompanied,
)
from watchword_server.store.purge import Retention, due

_PARTITIONS_REMEDY: Final = "A running server makes them: start it or look into its log for `partition`."
_PURGE_TAKES: Final = timedelta(days=1)


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
        urgent = missing[0].begins_at <= until
        what = (
            f"missing from {missing[0].begins_at:%Y-%m-%d}: what falls there cannot be stored"
            if urgent
            else f"the next one ({missing[0].begins_at:%Y-%m-%d}) is not there yet"
        )
        findings.append(Finding(f"partitions of {parent}", "fail" if urgent else "warn", what, _PARTITIONS_REMEDY))
    alone = unaccompanied(covered)
    if alone:
        what = f"{alone[0].name} is missing: what uses these tokens cannot be recorded"
        findings.append(Finding("partitions of token_usage", "warn", what, _PARTITIONS_REMEDY))
    return findings


async def check_retention(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """Whether what is past its retention goes."""
    now: datetime = await connection.fetchval("select now()")
    retention = Retention.of_days(settings.expired_tokens_kept_days, settings.audit_kept_days)
    return [judge_retention(due(await attached_partitions(connection), retention, now - _PURGE_TAKES))]


def judge_retention(overdue: Sequence[AttachedPartition]) -> Finding:
    """`overdue`: what is past its retention for longer than the servers take to drop it."""
    if not overdue:
        return Finding("retention", "ok", "nothing is kept for longer than it has to be")
    oldest = overdue[0]
    remedy = (
        "The servers drop it hourly, unless somebody reads the table just then: look into their log for `put off`."
        if oldest.made_by_server
        else "No server made it, and none drops it: do so yourself, as the owner of the schema."
    )
    more = f", and {len(overdue) - 1} more" if len(overdue) > 1 else ""
    return Finding("retention", "warn", f"{oldest.name} is past its retention and still there{more}", remedy)


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
