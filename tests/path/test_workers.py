"""`serve --workers`: several processes answer on one port, and the loss of one is not the loss of the service."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import psutil
import pytest

from tests.conftest import Watchword, running_watchword
from tests.path.locks import locked_tokens, wait_for_waiting
from tests.path.party import Party, code_of, unique
from tests.path.test_outage import data_folder
from tests.servers import ServerProcess
from watchword.v1 import token_service_pb2 as pb
from watchword_server.keyring import Keyring
from watchword_server.workers import DEATHS_MAX

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])
ALL_SERVE = re.compile(r"by 2 workers")
SERVES = re.compile(r"worker (\d) serves: process (\d+)")
ENDED = re.compile(r"worker (\d) \(process (\d+)\) ended: signal 9")
METRICS = re.compile(r"metrics on (http://[^\"]+)")
STOP_SECONDS_MAX = 30
CONNECTIONS_MAX = 200


@contextmanager
def two_workers(dsn: str, transport: str, **environment: str) -> Iterator[Watchword]:
    with running_watchword(dsn, transport=transport, WATCHWORD_WORKERS="2", **environment) as running:
        running.server.wait_for_log(ALL_SERVE)
        yield running


def workers(server: ServerProcess) -> dict[str, psutil.Process]:
    """By number, those that served last."""
    pids = {match[1]: int(match[2]) for match in map(SERVES.search, server.log) if match}
    return {number: psutil.Process(pid) for number, pid in pids.items()}


def one_call(running: Watchword) -> None:
    """On a connection of its own, tried again if that went to a worker that has just died."""
    for _ in range(CONNECTIONS_MAX):
        with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            code = code_of(Party(channel, running.admin_token).issue, unique())
        if code is grpc.StatusCode.OK:
            return
        assert code is grpc.StatusCode.UNAVAILABLE
    raise AssertionError("nobody answers")


def calls_counted(server: ServerProcess) -> list[float]:
    """The calls of Issue that each worker's own metrics have."""
    counted = []
    for match in filter(None, map(METRICS.search, server.log)):
        with urllib.request.urlopen(match[1], timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        counted.append(
            sum(
                float(line.split()[-1])
                for line in lines
                if line.startswith("watchword_calls_total") and "Issue" in line
            )
        )
    return counted


@TRANSPORTS
def test_calls_are_answered_by_each_worker(dsn: str, transport: str) -> None:
    with two_workers(dsn, transport) as running:
        for made in range(1, CONNECTIONS_MAX):
            one_call(running)
            counted = calls_counted(running.server)
            assert sum(counted) == made
            if min(counted) > 0:
                break
        # The kernel chooses by the client's port: one worker alone is as likely as heads 200 times.
        assert len(counted) == 2
        assert min(counted) > 0
        assert running.server.stop() == 0


@TRANSPORTS
def test_a_worker_that_dies_is_replaced_and_the_others_go_on(dsn: str, transport: str) -> None:
    with two_workers(dsn, transport) as running:
        before = workers(running.server)
        before["1"].kill()
        assert running.server.wait_for_log(ENDED)[1] == "1"
        one_call(running)
        assert running.server.wait_for_log(SERVES)[1] == "1"
        after = workers(running.server)
        assert after["1"].pid != before["1"].pid
        assert after["2"].pid == before["2"].pid
        one_call(running)


@TRANSPORTS
def test_signals_to_all_processes_drain_each_worker_once(dsn: str, transport: str) -> None:
    with two_workers(dsn, transport) as running:
        admin = Party(running.admin.channel, running.admin_token)
        secret = admin.issue(unique()).secret
        with locked_tokens(dsn, secret):
            held = admin.tokens.Revoke.future(
                pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=STOP_SECONDS_MAX
            )
            wait_for_waiting(dsn)
            # As systemd does: a worker that counted its own signal and its parent's would be in a hurry.
            for process in [*workers(running.server).values(), psutil.Process(running.server.pid)]:
                process.terminate()
            for _ in range(2):
                running.server.wait_for_log(re.compile("draining"))
            assert not held.done()
        assert held.result(timeout=STOP_SECONDS_MAX).revoked_count == 1
        assert running.server.wait() == 0
        assert "cut off" not in "".join(running.server.log)


def test_a_second_signal_ends_all_workers_at_once(dsn: str) -> None:
    with two_workers(dsn, "grpcio", WATCHWORD_DRAIN_GRACE_SECONDS="600") as running:
        admin = Party(running.admin.channel, running.admin_token)
        secret = admin.issue(unique()).secret
        with locked_tokens(dsn, secret):
            held = admin.tokens.Revoke.future(pb.RevokeRequest(token=secret), metadata=admin.metadata, timeout=60)
            wait_for_waiting(dsn)
            for _ in range(2):
                running.server.signal(signal.SIGTERM)
                running.server.wait_for_log(re.compile("draining|cut off"))
            assert held.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            running.server.wait()


@TRANSPORTS
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_second_server_on_the_port_fails_clearly(dsn: str, transport: str, count: str) -> None:
    with running_watchword(dsn, transport=transport, WATCHWORD_WORKERS=count) as running:
        environment = {
            **running.server.environment,
            "WATCHWORD_LISTEN": running.address,
            "WATCHWORD_METRICS_LISTEN": "",
        }
        for others in ("1", "2"):
            ended = ServerProcess(running.server.data_dir, environment).run("serve", "--workers", others)
            assert ended.returncode == 78, ended.stderr
            assert f"cannot listen on {running.address}: Address already in use" in ended.stderr
            assert "WATCHWORD_LISTEN" in ended.stderr
        one_call(running)


def test_workers_end_when_their_parent_is_killed(dsn: str) -> None:
    with two_workers(dsn, "auto") as running:
        left = list(workers(running.server).values())
        running.server.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS_MAX)
        assert alive == []
        running.server.wait_for_log(re.compile("the parent process is gone"))


def test_workers_that_die_again_and_again_end_the_server(dsn: str) -> None:
    with two_workers(dsn, "auto") as running:
        victim = workers(running.server)["1"]
        for death in range(DEATHS_MAX):
            victim.kill()
            running.server.wait_for_log(ENDED)
            if death + 1 < DEATHS_MAX:
                victim = psutil.Process(int(running.server.wait_for_log(SERVES)[2]))
        running.server.wait_for_log(re.compile("workers died within"))
        assert running.server.wait() == 70


def test_a_worker_that_cannot_start_ends_the_start_and_says_why(dsn: str) -> None:
    with running_watchword(dsn) as running:
        metrics = next(match[1] for match in map(METRICS.search, running.server.log) if match)
        taken = int(metrics.rpartition(":")[2].split("/")[0])
        environment = {**running.server.environment, "WATCHWORD_METRICS_LISTEN": f"127.0.0.1:{taken - 1}"}
        ended = ServerProcess(running.server.data_dir, environment).run("serve", "--workers", "2")
        assert ended.returncode == 70, ended.stderr
        assert "cannot serve metrics" in ended.stderr
        assert "could not start" in ended.stderr


def test_arguments_of_a_worker_hold_no_secret(dsn: str) -> None:
    with two_workers(dsn, "auto") as running:
        keyring = Keyring.load((running.server.data_dir / "keyring").read_text())
        shown = " ".join(" ".join(process.cmdline()) for process in workers(running.server).values())
        assert "peppers" not in shown
        assert keyring.dump().strip() not in shown
        assert dsn not in shown


def test_each_worker_is_a_replica_and_a_dead_one_is_waited_for_no_longer_than_its_lease(dsn: str) -> None:
    with two_workers(dsn, "auto", WATCHWORD_LEASE_SECONDS_MAX="2") as running:
        admin = Party(running.admin.channel, running.admin_token)
        reached = admin.revoke(token=admin.issue(unique()).secret)
        assert (reached.propagation, reached.replicas_count) == (pb.PROPAGATION_COMPLETE, 2)
        workers(running.server)["1"].kill()
        running.server.wait_for_log(ENDED)
        running.server.environment["WATCHWORD_TOKEN"] = running.admin_token
        ended = running.server.run("revoke", "--subject", "admin", "--yes", "--force", "--wait", "30s", "-o", "json")
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["propagation"] == "PROPAGATION_COMPLETE"


def test_a_data_folder_has_one_database_and_one_administrator_for_all_workers() -> None:
    with data_folder() as folder, ServerProcess(folder, {"WATCHWORD_WORKERS": "2"}) as server:
        server.wait_for_log(ALL_SERVE)
        listed = server.run("tokens", "list", "--output", "json")
        assert listed.returncode == 0, listed.stderr
        assert listed.stdout.count('"token_id"') == 1
        assert sum("made an administrator" in line for line in server.log) == 1
        assert server.stop() == 0
