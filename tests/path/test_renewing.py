"""Tokens that renew themselves, against a running Watchword: under load, through an outage, and when somebody dies."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from bench.renewers import Work
from bench.rotations import Administrator, clients_at_work, run_until
from bench.service import protected_service
from tests.client.killed_renewer import STEPS, killed
from tests.client.renewers import STACKS, Kept, from_file, renewing
from tests.client.subjects import until
from tests.conftest import Watchword, running_watchword
from tests.path.party import Party, unique
from watchword import aio
from watchword.aio import RenewingToken
from watchword.v1 import audit_service_pb2
from watchword.v1 import token_service_pb2 as pb

CLIENTS, ROTATIONS = 50, 75
ROTATIONS_SECONDS_MAX = 240.0


@pytest.mark.timeout(400)
def test_fifty_clients_renew_under_load_and_not_one_call_fails(watchword: Watchword) -> None:
    administrator = Administrator(watchword.admin.channel, watchword.admin_token)
    administrator.register()
    port = int(watchword.address.rpartition(":")[2])
    with (
        tempfile.TemporaryDirectory() as folder,
        protected_service(port, administrator.service_token()) as service,
    ):
        # Lives that leave seconds between the latest renewal and the end: the machine may be busy with other tests.
        work = Work(watchword.address, f"127.0.0.1:{service.ports['cached']}", 12.0, 8.0, 0.2)
        with clients_at_work(administrator, Path(folder), CLIENTS, work) as processes:
            result = run_until(processes, ROTATIONS, ROTATIONS_SECONDS_MAX)
    assert (result.failures, result.failed_calls) == ({}, 0)
    assert result.clients == CLIENTS
    assert result.rotations >= ROTATIONS
    assert result.calls > 10 * CLIENTS


class Caller:
    """A token in a file, for Watchword and for a service that asks it about each call."""

    def __init__(self, admin: Party, file: Kept, life_seconds: int) -> None:
        request = pb.IssueRequest(
            subject=unique("caller"), audiences=["watchword", "admin"], ttl=Duration(seconds=life_seconds)
        )
        made = admin.tokens.Issue(request, metadata=admin.metadata)
        self.first = made.secret
        self.token_id = made.token.token_id
        self._admin = admin
        file.put(made.secret)

    def is_good(self, secret: str) -> bool:
        return self._admin.verdict(secret) == "active"

    @property
    def successor_id(self) -> str:
        return self._admin.record(self.token_id).successor_id


@pytest.fixture
def file(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "orders.token")


@asynccontextmanager
async def renewing_by_itself(file: Kept, address: str, **settings: Any) -> AsyncIterator[RenewingToken]:
    token = RenewingToken.file(file.path, **settings)
    async with aio.connect(address, token=token) as authority, token.renewing(authority):
        yield token


@pytest.mark.parametrize("stack", STACKS)
async def test_an_outage_in_the_middle_of_it_is_survived(dsn: str, file: Kept, stack: str) -> None:
    with running_watchword(dsn) as running:
        admin = Party(running.admin.channel, running.admin_token)
        caller = Caller(admin, file, 120)
        address = running.address
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().token_id == caller.token_id)
            await asyncio.to_thread(running.server.stop)
            await until(lambda: token.status().last_error)
            assert token.token() == caller.first
            running.server.environment["WATCHWORD_LISTEN"] = address
            await asyncio.to_thread(running.server.start)
            await until(lambda: token.status().renewals_count)
            assert caller.is_good(token.token())
            assert caller.successor_id == token.status().token_id


@pytest.mark.parametrize("step", STEPS)
async def test_whoever_shares_the_file_of_a_killed_process_goes_on(
    watchword: Watchword, admin: Party, file: Kept, step: str
) -> None:
    caller = Caller(admin, file, 60)
    async with renewing_by_itself(file, watchword.address, grace_seconds=15) as sibling:
        assert await killed(watchword.address, file.path, step, 15) == -signal.SIGKILL
        await until(lambda: sibling.status().token_id not in ("", caller.token_id))
        assert caller.is_good(sibling.token())
        assert caller.is_good(caller.first)
    assert sibling.token() == file.get() != caller.first
    assert caller.successor_id == sibling.status().token_id
    events = admin.events(audit_service_pb2.ListEventsRequest(token_id=caller.token_id, action="rotate")).events
    assert len(events) == (2 if step in STEPS[1:3] else 1)


async def test_a_token_that_does_not_name_watchword_is_told_so(watchword: Watchword, admin: Party, file: Kept) -> None:
    file.put(admin.issue(unique(), ["orders"]).secret)
    async with renewing_by_itself(file, watchword.address) as token:
        await until(lambda: token.status().last_error)
        assert token.status().last_error == "TOKEN_INACTIVE"
        assert not token.status().is_renewing


async def test_a_session_is_not_renewed(watchword: Watchword, admin: Party, file: Kept) -> None:
    request = pb.IssueRequest(
        subject=unique(),
        audiences=["watchword"],
        ttl=Duration(seconds=600),
        kind=pb.TOKEN_KIND_SESSION,
        idle_timeout=Duration(seconds=300),
    )
    file.put(admin.tokens.Issue(request, metadata=admin.metadata).secret)
    async with renewing_by_itself(file, watchword.address) as token:
        await until(lambda: token.status().last_error == "SESSION")


@pytest.mark.parametrize("stack", STACKS)
async def test_a_grace_period_that_is_not_granted_is_said(
    watchword: Watchword, admin: Party, file: Kept, stack: str
) -> None:
    caller = Caller(admin, file, 60)
    async with renewing(from_file(stack, file, grace_seconds=5e7), watchword.address) as token:
        await until(lambda: token.status().last_error)
        assert token.status().last_error == "FIELD_INVALID"
        assert token.token() == caller.first


@pytest.mark.parametrize("stack", STACKS)
async def test_the_token_of_a_blocked_subject_is_given_up(
    watchword: Watchword, admin: Party, file: Kept, stack: str
) -> None:
    caller = Caller(admin, file, 60)
    async with renewing(from_file(stack, file), watchword.address) as token:
        await until(lambda: token.status().token_id == caller.token_id)
        admin.block(admin.record(caller.token_id).subject)
        await until(lambda: not token.status().is_renewing)
        assert token.status().last_error == "TOKEN_INACTIVE"
        assert caller.successor_id == ""
