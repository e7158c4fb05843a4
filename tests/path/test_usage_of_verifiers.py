"""What the client library admits from memory reaches the database, and nothing is counted twice on the way; and what
verifiers use themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from tests.client.subjects import until
from tests.conftest import Watchword, running_watchword
from tests.path.party import Party, administrator, unique
from tests.path.test_caching_verifier import Authority
from tests.path.watcher import attached, duration
from watchword.token import parse_token
from watchword.v1 import token_service_pb2 as pb
from watchword.verifier import Active

HITS = 50
IDLE_SECONDS = 6


@pytest.fixture
def running(dsn: str) -> Iterator[Watchword]:
    """A server that asks for reports often."""
    with running_watchword(dsn, WATCHWORD_USAGE_INTERVAL_SECONDS="0.2") as made:
        yield made


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_every_admission_is_counted_once_by_whoever_made_it(running: Watchword, kind: str) -> None:
    authority = Authority(running.address, running.admin_token)
    token = await authority.issue("caller", "orders")
    token_id = parse_token(token).token_id

    def count() -> int:
        with psycopg.connect(running.dsn) as database:
            row = database.execute("select use_count from token_usage where token_id = %s", [token_id]).fetchone()
        return 0 if row is None else int(row[0])

    async with authority.subject(kind) as subject:
        # Together, so that most join the question of one: the service knows of that one.
        for verdict in await asyncio.gather(*(subject.check(token) for _ in range(HITS))):
            assert isinstance(verdict, Active)
        for _ in range(HITS):
            assert isinstance(await subject.check(token), Active)
        await until(lambda: count() >= 2 * HITS)
    assert count() == 2 * HITS


async def test_a_watch_keeps_the_session_that_it_rests_on(running: Watchword) -> None:
    """Also one whose idle timeout is far shorter than the time after which streams are looked at anyway."""
    admin = administrator(running)
    made = admin.make(
        subject=unique("orders"),
        audiences=["watchword"],
        scopes=["watchword.validate"],
        kind=pb.TOKEN_KIND_SESSION,
        idle_timeout=duration(IDLE_SECONDS),
    )

    def seconds_used() -> float:
        record = admin.record(made.token.token_id)
        ends_at, created_at = record.idle_expires_at.ToDatetime(), record.created_at.ToDatetime()
        return (ends_at - created_at).total_seconds() - IDLE_SECONDS

    with attached(Party(admin.channel, made.secret, made.token.token_id)) as watcher:
        await until(lambda: seconds_used() > IDLE_SECONDS)
        watcher.renew()
