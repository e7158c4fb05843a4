"""What doctor makes of the servers' leases, before, at and after each limit."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from watchword_server.doctor.replicas import check_replicas, judge_replicas
from watchword_server.store.fleet_contract import ReplicaRow, Roll

EPOCH = UUID(int=1)


def replica(
    *, applied: int | None = 7, renewed_ago_seconds: float = 1, epoch: UUID = EPOCH, name: str = "one"
) -> ReplicaRow:
    return ReplicaRow(
        key=UUID(int=9),
        epoch=epoch,
        name=name,
        applied=applied,
        renewals=3,
        lease_seconds=60,
        draining=False,
        watchers_count=0,
        renewed_ago_seconds=renewed_ago_seconds,
    )


def roll(*replicas: ReplicaRow, number: int = 7, settled: bool = True) -> Roll:
    return Roll(EPOCH, number, settled, 60, replicas)


@pytest.mark.parametrize(
    ("looks", "status", "says"),
    [
        ([roll()], "ok", "no server runs"),
        ([roll(replica())], "ok", "1 server renews"),
        ([roll(replica(), replica())], "ok", "2 servers renew"),
        ([roll(replica(renewed_ago_seconds=60))], "ok", "1 server renews"),
        ([roll(replica(renewed_ago_seconds=60.1))], "warn", "until it is fenced"),
        ([roll(replica(), settled=False)], "warn", "failed over or was restored"),
        ([roll(replica(applied=4))], "warn", "3 positions behind"),
        ([roll(replica(applied=None))], "warn", "has not applied"),
        # It was on its way; and what was revoked since the first look may be.
        ([roll(replica(applied=6)), roll(replica(applied=7), number=9)], "ok", "1 server renews"),
        ([roll(replica(applied=6)), roll(replica(applied=6), number=9)], "warn", "1 positions behind"),
    ],
)
def test_leases(looks: list[Roll], status: str, says: str) -> None:
    [finding] = judge_replicas(looks[0], looks[-1])
    assert finding.status == status
    assert says in finding.message
    assert bool(finding.remedy) is (status != "ok")


def test_dead_server_is_named_once_and_not_for_its_lag() -> None:
    dead = replica(name="gone", applied=1, renewed_ago_seconds=600)
    [finding] = judge_replicas(roll(replica(), dead), roll(replica(), dead))
    assert finding.message.startswith("gone has not renewed its lease of 60 s for 600 s")
    assert "within 61 s" in finding.remedy


async def test_what_the_database_holds_is_judged(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    [finding] = await check_replicas(connection)
    assert (finding.status, finding.message) == ("ok", "no server runs; nothing that was revoked is on its way")
    await connection.execute(
        "insert into replicas (key, epoch, name, lease_seconds, renewed_at) "
        "select $1, epoch, 'one', 2, now() - interval '1 hour' from feed",
        uuid4(),
    )
    [finding] = await check_replicas(connection)
    assert (finding.status, finding.message.startswith("one has not renewed its lease of 2 s")) == ("warn", True)
    await connection.close()
