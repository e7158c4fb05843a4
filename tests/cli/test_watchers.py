"""`watchword watchers` shows whom a revocation waits for."""

from __future__ import annotations

import json

import grpc

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.v1.fleet_service_pb2 import Watcher


def test_servers_and_verifiers_are_listed_with_lag_and_lease(
    watchword: CommandLine, authority: Authority, fleet: None
) -> None:
    ended = watchword("watchers")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["server-two", "2", "1", "1m", "1s", "ago"] in lines
    assert ["orders", "web-3", "orders-service", "server-two", "yes", "2", "41s"] in lines
    assert ["cart", "web-4", "cart-service", "server-two", "LOST", "0", "41s"] in lines


def test_lagging_leaves_out_those_that_are_up_to_date(
    watchword: CommandLine, authority: Authority, fleet: None
) -> None:
    answer = json.loads(watchword("watchers", "--lagging", "-o", "json").stdout)
    assert [watcher["name"] for watcher in answer["watchers"]] == ["orders", "cart"]
    assert [replica["name"] for replica in answer["replicas"]] == ["server-one", "server-two"]
    assert answer["watchers"][0]["lag"] == 2


def test_pages_are_followed_to_the_limit(watchword: CommandLine, authority: Authority) -> None:
    authority.watchers += [Watcher(name=f"v{number}", attached=True) for number in range(24)]
    assert len(json.loads(watchword("watchers", "-o", "json").stdout)["watchers"]) == 24
    ended = watchword("watchers", "--limit", "13")
    assert "--page-token 13" in ended.stderr


def test_nobody_attached_is_said(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("watchers")
    assert (ended.returncode, "asks at every check" in ended.stderr) == (0, True)


def test_who_may_not_see_the_fleet_is_told_the_scope(watchword: CommandLine, authority: Authority) -> None:
    authority.fleet_refusal = grpc.StatusCode.PERMISSION_DENIED
    ended = watchword("watchers")
    assert ended.returncode == 5
    assert "watchword.read" in ended.stderr


def test_names_cannot_drive_the_terminal(watchword: CommandLine, authority: Authority) -> None:
    authority.watchers.append(Watcher(name="\x1b[2J", instance="\u202eevil"))
    assert "\x1b" not in watchword("watchers").stdout
