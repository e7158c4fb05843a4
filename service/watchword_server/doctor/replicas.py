"""The servers as the database knows them: whether each renews its lease, and whether what was revoked reached it."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from watchword.lease import DRIFT
from watchword_server.doctor.finding import Finding
from watchword_server.store.database import query
from watchword_server.store.fleet import roll_of
from watchword_server.store.fleet_contract import ReplicaRow, Roll

_CHECK: Final = "replicas"
_LAG_SECONDS: Final = 2.0
"""A server that runs well has heard of a revocation long before."""


async def check_replicas(connection: asyncpg.Connection) -> list[Finding]:
    """Looks twice if a server lags: a revocation may just be on its way."""
    first = later = roll_of(await connection.fetch(query("fleet_roll")))
    if any(_lags(replica, first) for replica in first.replicas):
        await asyncio.sleep(_LAG_SECONDS)
        later = roll_of(await connection.fetch(query("fleet_roll")))
    return judge_replicas(first, later)


def judge_replicas(first: Roll, later: Roll) -> list[Finding]:
    """What two looks tell: the later one of leases, and both together of lag."""
    dead = [replica for replica in later.replicas if replica.renewed_ago_seconds > replica.lease_seconds]
    findings = [_judge_dead(replica) for replica in dead]
    findings += [
        Finding(
            _CHECK,
            "warn",
            f"{replica.name} has not applied what was revoked"
            + ("" if replica.applied is None else f", it is {first.number - replica.applied} positions behind")
            + ": revocations answer PENDING meanwhile",
            f"A verifier that lags is waited for until its lease ends, at most {_after(replica)} s: `watchword"
            " watchers` names it. If none does, look into that server's log.",
        )
        for replica in later.replicas
        if replica not in dead and _lags(replica, first)
    ]
    if not later.settled:
        findings.append(
            Finding(
                _CHECK,
                "warn",
                "the database failed over or was restored: revocations answer PENDING until every lease from before"
                " has run out",
                f"Wait {later.longest_lease_seconds * (1 + DRIFT):.0f} s while a server runs.",
            )
        )
    if findings:
        return findings
    count = len(later.replicas)
    said = (
        "no server runs"
        if not count
        else "1 server renews its lease"
        if count == 1
        else f"{count} servers renew their leases"
    )
    return [Finding(_CHECK, "ok", f"{said}; nothing that was revoked is on its way")]


def _judge_dead(replica: ReplicaRow) -> Finding:
    return Finding(
        _CHECK,
        "warn",
        f"{replica.name} has not renewed its lease of {replica.lease_seconds:g} s for"
        f" {replica.renewed_ago_seconds:.0f} s: revocations wait for it until it is fenced",
        f"The other servers do this by themselves within {_after(replica)} s; if none runs, start one. A server that"
        " still runs and cannot reach the database answers nothing either: look into its log.",
    )


def _after(replica: ReplicaRow) -> str:
    """Seconds after which nobody relies on its lease, as an observer counts them, in text."""
    return f"{replica.lease_seconds * (1 + DRIFT) + 1:.0f}"


def _lags(replica: ReplicaRow, roll: Roll) -> bool:
    return replica.epoch == roll.epoch and (replica.applied is None or replica.applied < roll.number)
