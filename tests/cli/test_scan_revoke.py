"""`watchword scan --revoke` ends what it found and says which of it was live."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from tests.cli.test_scan import token, token_id
from tests.conftest import Watchword, running_watchword
from tests.databases import Databases
from watchword.v1.token_service_pb2 import (
    PROPAGATION_PENDING,
    TOKEN_STATE_LIVE,
    TOKEN_STATE_REVOKED,
    RevokeRequest,
)


@pytest.fixture
def leaks(tmp_path: Path, authority: Authority) -> Path:
    """Three files: a live token in two of them, one that nobody issued in the third."""
    folder = tmp_path / "leaks"
    folder.mkdir()
    live = authority.add()
    for name in ("a", "b"):
        (folder / name).write_text(live)
    (folder / "c").write_bytes(token().text)
    return folder


def test_each_is_revoked_once_by_its_secret_and_then_waited_for(
    watchword: CommandLine, authority: Authority, leaks: Path
) -> None:
    live, unknown = (leaks / "a").read_text(), (leaks / "c").read_text()
    ended = watchword("scan", "--revoke", "--wait", "20s", str(leaks))
    assert ended.returncode == 1
    assert authority.tokens[live].state == TOKEN_STATE_REVOKED
    assert authority.requests == [
        RevokeRequest(token=live, reason="LEAKED", no_wait=True),
        RevokeRequest(token=unknown, reason="LEAKED", no_wait=True),
        RevokeRequest(token=live, reason="LEAKED"),
    ]
    assert 10 < authority.deadlines_seconds[-1] < 25
    assert [line.split()[3:] for line in ended.stdout.splitlines() if line.strip().startswith(str(leaks))] == [
        ["live"],
        ["live"],
        ["not", "live"],
    ]
    assert "COMPLETE: dead everywhere" in ended.stdout
    for secret in (live, unknown):
        assert secret[-39:] not in ended.stdout + ended.stderr


def test_json_says_which_were_live(watchword: CommandLine, authority: Authority, leaks: Path) -> None:
    ended = watchword("scan", "--revoke", "-o", "json", str(leaks))
    answer = json.loads(ended.stdout)
    assert [one["was_live"] for one in answer["findings"]] == [True, True, False]
    assert (answer["revoked_count"], answer["propagation"]) == (1, "PROPAGATION_COMPLETE")
    assert answer["elapsed_seconds"] > 0
    assert all(secret not in ended.stdout + ended.stderr for secret in authority.tokens)


def test_a_successor_that_lives_on_is_named(watchword: CommandLine, authority: Authority, leaks: Path) -> None:
    found = authority.tokens[(leaks / "a").read_text()]
    found.successor_id = "after"
    ended = watchword("scan", "--revoke", str(leaks / "a"))
    assert ended.returncode == 1
    assert "its successor after was not found here" in ended.stderr
    assert f"watchword revoke --id {found.token_id} --cascade --reason LEAKED" in ended.stderr


def test_json_names_the_live_successor(watchword: CommandLine, authority: Authority, leaks: Path) -> None:
    authority.tokens[(leaks / "a").read_text()].successor_id = "after"
    answer = json.loads(watchword("scan", "--revoke", "-o", "json", str(leaks)).stdout)
    assert [one["live_successor_id"] for one in answer["findings"]] == ["after", "after", ""]


def test_pending_exits_7_and_no_wait_does_not_wait(watchword: CommandLine, authority: Authority, leaks: Path) -> None:
    authority.propagation = PROPAGATION_PENDING
    ended = watchword("scan", "--revoke", "--no-wait", str(leaks / "a"))
    assert (ended.returncode, len(authority.requests)) == (1, 1)
    (leaks / "a").write_text(authority.add())
    ended = watchword("scan", "--revoke", str(leaks / "a"))
    assert ended.returncode == 7
    assert "PENDING" in ended.stdout
    assert "watchword watchers --lagging" in ended.stderr


def test_a_server_that_refuses_is_an_error_after_the_findings(
    watchword: CommandLine, authority: Authority, leaks: Path
) -> None:
    authority.refusal = (grpc.StatusCode.UNAVAILABLE, "no database", ())
    ended = watchword("scan", "--revoke", str(leaks))
    assert ended.returncode == 3
    assert ended.stdout.count("unknown") == 3
    assert "no database" in ended.stderr
    # One that is refused does not keep the others from being tried.
    assert len(authority.requests) == 2


def test_nothing_found_calls_nobody(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert watchword("scan", "--revoke", str(tmp_path / "x")).returncode == 0
    assert authority.requests == []


def test_without_revoke_nobody_is_called(watchword: CommandLine, authority: Authority, leaks: Path) -> None:
    assert watchword("scan", str(leaks)).returncode == 1
    assert authority.requests == []
    assert authority.tokens[(leaks / "a").read_text()].state == TOKEN_STATE_LIVE


@pytest.fixture(scope="module")
def running(postgres: Databases) -> Iterator[Watchword]:
    with postgres.fresh() as dsn, running_watchword(dsn) as made:
        made.server.environment["WATCHWORD_TOKEN"] = made.admin_token
        yield made


def test_a_real_server_ends_what_leaked(running: Watchword, tmp_path: Path) -> None:
    server = running.server
    issued = server.run("issue", "--subject", "shop", "--audience", "orders", "--quiet")
    assert issued.returncode == 0, issued.stderr
    leaked, never_issued = issued.stdout.strip(), token()
    (tmp_path / "a").write_text(f"TOKEN={leaked}\n")
    (tmp_path / "b").write_bytes(never_issued.text)
    scan = ("scan", "--revoke", "-o", "json", str(tmp_path / "a"), str(tmp_path / "b"))
    ended = server.run(*scan)
    assert ended.returncode == 1, ended.stderr
    answer = json.loads(ended.stdout)
    assert [(one["token_id"] == token_id(never_issued), one["was_live"]) for one in answer["findings"]] == [
        (False, True),
        (True, False),
    ]
    assert (answer["revoked_count"], answer["propagation"]) == (1, "PROPAGATION_COMPLETE")
    assert leaked[-39:] not in ended.stdout + ended.stderr + "".join(server.log)
    explained = server.run("validate", "--as", "orders", stdin=leaked)
    assert (explained.returncode, "revoked" in explained.stdout) == (1, True)
    events = json.loads(server.run("audit", "list", "--action", "revoke", "-o", "json").stdout)["events"]
    assert "LEAKED" in {event["details"].get("reason") for event in events}
    again = json.loads(server.run(*scan).stdout)
    assert [one["was_live"] for one in again["findings"]] == [False, False]
