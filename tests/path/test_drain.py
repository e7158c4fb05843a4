"""Going away: SIGTERM under load, and a second one."""

from __future__ import annotations

import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import Watchword, running_watchword
from tests.path.locks import locked_tokens, wait_for_waiting
from tests.path.party import Party, administrator, refusal_of, unique
from watchword.token import parse_token
from watchword.v1 import token_service_pb2 as pb

DRAINING = re.compile("draining")
TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])
CALLERS = 6


def _issue_until_refused(running: Watchword, subject: str, begun: threading.Barrier) -> tuple[list[str], list[str]]:
    """One caller on a connection of its own: the ids it was given, and how its last call ended."""
    given: list[str] = []
    with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        party = Party(channel, running.admin_token)
        waits = True
        while True:
            try:
                given.append(party.issue(subject).token.token_id)
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                return given, [f"{refusal.code.name}: {refusal.message}"]
            if waits:
                begun.wait(20)
                waits = False


def _validate_until_refused(party: Party, token: str) -> NoReturn:
    """Streams end before calls are refused, so the first few may still be answered."""
    while True:
        party.validate(token)


@TRANSPORTS
def test_no_accepted_call_fails_when_the_server_is_told_to_stop_under_load(dsn: str, transport: str) -> None:
    subject = unique()
    with running_watchword(dsn, transport=transport) as running:
        begun = threading.Barrier(CALLERS + 1)
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(_issue_until_refused, running, subject, begun) for _ in range(CALLERS)]
            begun.wait(20)
            running.server.signal(signal.SIGTERM)
            answers = [caller.result(timeout=30) for caller in callers]
        assert running.server.wait() == 0
    given = {token_id for ids, _ in answers for token_id in ids}
    ends = [end for _, ends in answers for end in ends]
    # What was not accepted may be tried elsewhere; everything else was answered.
    assert all(end.startswith("UNAVAILABLE") for end in ends), ends
    with psycopg.connect(dsn) as database:
        stored = {row[0] for row in database.execute("select id from tokens where subject = %s", (subject,))}
    assert len(given) >= CALLERS
    # Done and answered are one: nothing was carried out whose caller was told to try again.
    assert len(stored) == len(given)
    assert "cut off" not in "".join(running.server.log)


@TRANSPORTS
def test_a_call_under_way_is_finished_and_new_ones_are_refused(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport) as running:
        admin = administrator(running)
        secret = admin.issue(unique()).secret
        health = health_pb2_grpc.HealthStub(admin.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with locked_tokens(dsn, secret):
            held = admin.tokens.Revoke.future(pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=30)
            wait_for_waiting(dsn)
            running.server.signal(signal.SIGTERM)
            running.server.wait_for_log(DRAINING)
            # Whoever watches is told at once, and then let go.
            assert [one.status for one in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
            with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                late = Party(channel, running.admin_token)
                with pytest.raises(grpc.RpcError) as refusal:
                    _validate_until_refused(late, running.admin_token)
                assert refusal_of(refusal.value).code is grpc.StatusCode.UNAVAILABLE
            assert not held.done()
        assert held.result(timeout=20).revoked_count == 1
        assert running.server.wait() == 0
        assert "cut off" not in "".join(running.server.log)


@TRANSPORTS
def test_a_second_signal_ends_it_at_once(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport) as running:
        admin = administrator(running)
        secret = admin.issue(unique()).secret
        with locked_tokens(dsn, secret) as database:
            held = admin.tokens.Revoke.future(pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=60)
            wait_for_waiting(dsn)
            running.server.signal(signal.SIGTERM)
            running.server.wait_for_log(DRAINING)
            running.server.signal(signal.SIGTERM)
            assert held.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            running.server.wait()
            row = database.execute(
                "select revoked_at from tokens where id = %s", (parse_token(secret).token_id,)
            ).fetchone()
            assert row == (None,)


def test_a_call_that_outlasts_the_grace_is_cut_off_and_does_not_keep_the_process(dsn: str) -> None:
    with running_watchword(dsn, WATCHWORD_DRAIN_GRACE_SECONDS="0.5") as running:
        admin = administrator(running)
        secret = admin.issue(unique()).secret
        with locked_tokens(dsn, secret):
            held = admin.tokens.Revoke.future(pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=60)
            wait_for_waiting(dsn)
            running.server.signal(signal.SIGTERM)
            assert held.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            running.server.wait()
