"""More calls than the server takes on at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import Watchword, running_watchword
from tests.path.locks import locked_tokens, wait_for_waiting
from tests.path.party import Party, Refusal, administrator, refusal_of, refused, unique
from tests.path.watcher import attached
from tests.tooling.sources import ROOT
from watchword.v1 import token_service_pb2 as pb

FLOODERS = 2
CALLS_AT_A_TIME = 200
FLOOD_LEASE_SECONDS = 10.0
P = ParamSpec("P")
T = TypeVar("T")


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_call_above_the_limit_is_refused_with_when_to_retry(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport, WATCHWORD_CONCURRENT_CALLS_MAX="2") as running:
        admin = administrator(running)
        secrets = [admin.issue(unique()).secret for _ in range(2)]
        with locked_tokens(dsn, *secrets):
            held = [
                admin.tokens.Revoke.future(pb.RevokeRequest(token=one), metadata=admin.metadata, timeout=60)
                for one in secrets
            ]
            wait_for_waiting(dsn)
            answer = _until_refused(admin)
            assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert answer.retry_seconds is not None
            assert answer.retry_seconds > 0
            # Refused before the token is looked at: the limit is there to spare the work.
            assert refused(admin.send, "/watchword.v1.TokenService/Issue", b"\xff", metadata=()).reason == "OVERLOADED"
            health = health_pb2_grpc.HealthStub(admin.channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
        assert [one.result(timeout=20).revoked_count for one in held] == [1, 1]
        # Refused calls gave back what they never had.
        assert admin.list_scopes(pb.ListScopesRequest()).scopes


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_calls_that_were_cancelled_or_failed_give_their_permit_back(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport, WATCHWORD_CONCURRENT_CALLS_MAX="1") as running:
        admin = administrator(running)
        secret = admin.issue(unique()).secret
        for _ in range(3):
            assert refused(admin.revoke, token="nonsense").code is grpc.StatusCode.INVALID_ARGUMENT
        with locked_tokens(dsn, secret):
            expired = refused(admin.revoke, token=secret, timeout=0.5)
            assert expired.code is grpc.StatusCode.DEADLINE_EXCEEDED
            # The call is over, what it began is not.
            assert _until_let_in(admin).WhichOneof("verdict") == "inactive"


def _until_refused(admin: Party) -> Refusal:
    """The second of two calls arrives a moment after the first."""
    for _ in range(1000):
        try:
            admin.list_scopes(pb.ListScopesRequest())
        except grpc.RpcError as error:
            return refusal_of(error)
    raise AssertionError("all calls were let in")


def _until_let_in(admin: Party) -> pb.ValidateResponse:
    """The server hears of a call's end a moment after its caller."""
    for _ in range(1000):
        try:
            return admin.validate("nonsense")
        except grpc.RpcError as error:
            if refusal_of(error).code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
    raise AssertionError("the permit was not given back")


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_revocations_that_wait_do_not_keep_checks_waiting(dsn: str, transport: str) -> None:
    # More of them than there are connections.
    with running_watchword(dsn, transport=transport, WATCHWORD_POOL_SIZE_MAX="4") as running:
        admin = administrator(running)
        secret = admin.issue(unique()).secret
        with locked_tokens(dsn, secret):
            held = [
                admin.tokens.Revoke.future(pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=60)
                for _ in range(12)
            ]
            # One waits for the lock, the others wait for its transaction.
            wait_for_waiting(dsn)
            assert admin.verdict(admin.secret) == "inactive"
            assert admin.list_tokens(pb.ListTokensRequest()).tokens
            health = health_pb2_grpc.HealthStub(admin.channel)
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        counts = [one.result(timeout=20).revoked_count for one in held]
        assert sorted(counts) == [0] * 11 + [1]


@contextmanager
def flooded(running: Watchword, secret: str) -> Iterator[Counter[str]]:
    """Processes that call without end while the block runs; afterwards, how their calls ended."""
    command = [sys.executable, "-m", "tests.path.flood", running.address, str(CALLS_AT_A_TIME)]
    ends: Counter[str] = Counter()
    with ExitStack() as stack:
        floods = []
        for _ in range(FLOODERS):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdin is not None
            process.stdin.write(secret + "\n")
            process.stdin.flush()
            floods.append(process)
        for process in floods:
            assert process.stdout is not None
            assert process.stdout.readline() == "flooding\n"
        yield ends
        for process in floods:
            ends.update(json.loads(process.communicate(timeout=60)[0]))


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_flood_of_calls_costs_no_watcher_its_lease_and_holds_up_no_revocation(dsn: str, transport: str) -> None:
    limits = {
        "WATCHWORD_CONCURRENT_CALLS_MAX": "16",
        "WATCHWORD_FAILED_VALIDATIONS_PER_SECOND": "0",
        "WATCHWORD_LEASE_SECONDS_MAX": str(FLOOD_LEASE_SECONDS),
    }
    with running_watchword(dsn, transport=transport, **limits) as running, ExitStack() as stack:
        admin = administrator(running)
        verifier = admin.party(unique(), ["watchword.validate"])
        doomed = [admin.issue(unique()).secret for _ in range(3)]
        watchers = [stack.enter_context(attached(verifier, lease_seconds=FLOOD_LEASE_SECONDS)) for _ in range(3)]
        for watcher in watchers:
            watcher.keep_up()
        with flooded(running, verifier.secret) as ends:
            for secret in doomed:
                for watcher in watchers:
                    asked_at = time.monotonic()
                    watcher.renew()
                    # Granted while the last one was still good.
                    assert time.monotonic() - asked_at < FLOOD_LEASE_SECONDS / 2
                revoked = _until_done(admin.revoke, pb.RevokeRequest(token=secret))
                assert revoked.propagation == pb.PROPAGATION_COMPLETE
        assert ends["OVERLOADED"] > 0
        assert ends["OK"] > 0
        assert set(ends) <= {"OVERLOADED", "OK"}
        # When it is over, calls are taken again.
        assert _until_done(admin.verdict, "nonsense") == "inactive"


def _until_done(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Again and again while the server has no room."""
    until = time.monotonic() + 60
    while True:
        try:
            return call(*args, **kwargs)
        except grpc.RpcError as error:
            if refusal_of(error).reason != "OVERLOADED" or time.monotonic() > until:
                raise
