"""`watchword revoke` ends what was named, asks before ending many, and says when nothing matched."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.v1.token_service_pb2 import (
    PROPAGATION_PENDING,
    TOKEN_STATE_LIVE,
    TOKEN_STATE_REVOKED,
    RevokeRequest,
    Token,
)
from watchword_server.cli.revoke_preview import tree


def test_token_on_standard_input_is_revoked(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    ended = watchword("revoke", "--reason", "LEAKED", stdin=secret)
    assert ended.returncode == 0
    assert "COMPLETE" in ended.stdout
    assert authority.tokens[secret].state == TOKEN_STATE_REVOKED
    assert authority.requests == [RevokeRequest(token=secret, reason="LEAKED")]


def test_the_own_token_is_revoked_by_presenting_it(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("revoke", "--self", "--reason", "RETIRED")
    assert ended.returncode == 0, ended.stderr
    assert authority.requests == [RevokeRequest(token=watchword.caller, reason="RETIRED")]
    assert watchword.caller not in ended.stdout + ended.stderr


def test_a_successor_that_lives_on_is_named(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add(successor_id="after")
    ended = watchword("revoke", stdin=secret)
    assert ended.returncode == 0
    assert "successor after was left alone" in ended.stderr
    assert "--cascade takes it too" in ended.stderr


def test_dry_run_shows_each_token_below_what_it_hangs_on_and_ends_none(
    watchword: CommandLine, authority: Authority
) -> None:
    root = authority.tokens[authority.add("root")]
    successor = authority.tokens[authority.add("root", predecessor_id=root.token_id, lineage_id=root.token_id)]
    child = authority.tokens[authority.add("root", issued_by=successor.token_id)]
    tied = authority.tokens[authority.add("root", issued_by="gone", tied_to=root.token_id)]
    ended = watchword("revoke", "--subject", "root", "--cascade", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    rows = [line for line in ended.stdout.splitlines() if "root" in line]
    assert [(line.split()[0], line.split()[1]) for line in rows] == [
        (root.token_id, "named"),
        (successor.token_id, "successor"),
        (child.token_id, "issued"),
        (tied.token_id, "tied"),
    ]
    assert [len(line) - len(line.lstrip()) for line in rows] == [1, 3, 5, 5]
    assert "4 tokens. Nothing was done" in ended.stderr
    assert {token.state for token in authority.tokens.values()} == {TOKEN_STATE_LIVE}
    assert json.loads(watchword("revoke", "--subject", "root", "--dry-run", "-o", "json").stdout)["revoked_count"] == 4


def test_dry_run_that_matches_nothing_exits_4(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("revoke", "--subject", "nobody", "--dry-run")
    assert ended.returncode == 4
    assert "Nothing was done" in ended.stderr


def test_a_tree_that_goes_in_circles_is_shown_whole() -> None:
    tokens = [Token(token_id="a", issued_by="b"), Token(token_id="b", issued_by="a"), Token(token_id="c")]
    assert sorted(token.token_id for _, _, token in tree(tokens)) == ["a", "b", "c"]


def test_pending_says_until_when(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    secret = authority.add()
    ended = watchword("revoke", "--no-wait", "--id", authority.tokens[secret].token_id)
    assert ended.returncode == 0
    assert "PENDING" in ended.stdout
    assert "dead everywhere within 30s" in ended.stdout
    assert authority.requests[-1].no_wait  # type: ignore[attr-defined]


def test_nothing_matched_exits_4(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    assert watchword("revoke", stdin=secret).returncode == 0
    again = watchword("revoke", stdin=secret)
    assert again.returncode == 4
    assert "nothing matched" in again.stderr
    assert again.stdout == ""


def test_json_counts_with_numbers(watchword: CommandLine, authority: Authority) -> None:
    authority.add("shop")
    authority.add("shop")
    ended = watchword("revoke", "--subject", "shop", "--yes", "--output", "json")
    answer = json.loads(ended.stdout)
    assert answer["revoked_count"] == 2
    assert answer["propagation"] == "PROPAGATION_COMPLETE"
    assert answer["elapsed_seconds"] > 0


@pytest.mark.parametrize("arguments", [["--subject", "shop"], ["--issued-by", "x"], ["--id", "x", "--cascade"]])
def test_many_without_a_terminal_need_yes(watchword: CommandLine, authority: Authority, arguments: list[str]) -> None:
    ended = watchword("revoke", *arguments)
    assert ended.returncode == 2
    assert "--yes" in ended.stderr
    assert authority.requests == []


@pytest.mark.parametrize(("answer", "code", "live"), [(b"y\n", 0, False), (b"\n", 1, True), (b"n\n", 1, True)])
def test_many_on_a_terminal_are_asked_about(
    watchword: CommandLine, authority: Authority, answer: bytes, code: int, live: bool
) -> None:
    secret = authority.add("shop")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        ended = subprocess.run(
            [*WATCHWORD, "revoke", "--subject", "shop"],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=PROCESS_SECONDS_MAX,
            env=watchword.environment,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == code, ended.stderr
    assert "every token of 'shop' (1 live)" in ended.stderr
    assert (authority.tokens[secret].state == TOKEN_STATE_LIVE) is live


def test_two_targets_are_refused(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("revoke", "--id", "x", "--subject", "y", "--yes")
    assert ended.returncode == 2
    assert authority.requests == []


def test_complete_says_how_many_were_told(watchword: CommandLine, authority: Authority, fleet: None) -> None:
    ended = watchword("revoke", stdin=authority.add())
    assert ended.returncode == 0
    assert re.search(r"COMPLETE: dead everywhere after [0-9.]+ m?s, 2 replicas, 3 verifiers", ended.stdout)


def test_nothing_to_revoke_still_speaks_for_earlier_revocations(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    assert watchword("revoke", stdin=secret).returncode == 0
    assert "What was revoked before is dead everywhere." in watchword("revoke", stdin=secret).stderr


def test_all_that_were_issued_before_an_instant_are_revoked_but_the_callers_own(
    watchword: CommandLine, authority: Authority
) -> None:
    old, new = authority.add(), authority.add()
    authority.tokens[old].created_at.FromJsonString("2026-01-31T11:59:59Z")
    authority.tokens[new].created_at.FromJsonString("2026-01-31T12:00:00Z")
    ended = watchword("revoke", "--all", "--issued-before", "2026-01-31T12:00:00Z", "--yes")
    assert ended.returncode == 0, ended.stderr
    states = [authority.tokens[secret].state for secret in (old, new, watchword.caller)]
    assert states == [TOKEN_STATE_REVOKED, TOKEN_STATE_LIVE, TOKEN_STATE_LIVE]


def test_issued_before_can_be_how_long_ago(watchword: CommandLine, authority: Authority) -> None:
    before = datetime.now(UTC) - timedelta(hours=2)
    watchword("revoke", "--all", "--issued-before", "2h", "--yes")
    (request,) = authority.requests
    assert isinstance(request, RevokeRequest)
    named = request.all.issued_before.ToDatetime(tzinfo=UTC)
    assert before <= named <= datetime.now(UTC) - timedelta(hours=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--all", "--yes"], "--all and --issued-before belong together"),
        (["--issued-before", "2h", "--yes"], "--all and --issued-before belong together"),
        (["--all", "--issued-before", "2h", "--subject", "x", "--yes"], "more than one thing"),
        (["--all", "--issued-before", "2h"], "add --yes"),
        (["--all", "--issued-before", "yesterday", "--yes"], "2027-01-31T12:00:00Z"),
        (["--self", "--id", "x"], "more than one thing"),
        (["--id", "x", "--wait", "10ms"], "--no-wait"),
        (["--id", "x", "--wait", "soon"], "90d"),
    ],
)
def test_what_is_not_clear_revokes_nothing(
    watchword: CommandLine, authority: Authority, arguments: list[str], says: str
) -> None:
    ended = watchword("revoke", *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert authority.requests == []


def test_pending_after_the_wait_exits_7_and_says_for_whom_and_what_to_do(
    watchword: CommandLine, authority: Authority, fleet: None
) -> None:
    authority.propagation = PROPAGATION_PENDING
    ended = watchword("revoke", "--wait", "20s", stdin=authority.add())
    assert ended.returncode == 7
    assert "PENDING" in ended.stdout
    assert "dead everywhere within 30s" in ended.stdout
    assert "the verifier orders (web-3), 2 behind, lease for 41s more" in ended.stderr
    assert "the verifier cart (web-4), 0 behind, its stream is lost" in ended.stderr
    assert "web-1" not in ended.stderr
    assert "watchword watchers --lagging" in ended.stderr
    # The call's deadline is what the server waits by; `--timeout` is for other calls.
    assert 15 < authority.deadlines_seconds[0] <= 20


def test_pending_is_said_to_those_too_who_may_not_see_the_fleet(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    authority.fleet_refusal = grpc.StatusCode.PERMISSION_DENIED
    ended = watchword("revoke", stdin=authority.add())
    assert ended.returncode == 7
    assert "dead everywhere within 30s" in ended.stdout
    assert "not for you" not in ended.stderr


def test_pending_in_json_is_one_object_and_the_exit_code(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    ended = watchword("revoke", "-o", "json", stdin=authority.add())
    assert ended.returncode == 7
    assert json.loads(ended.stdout)["effective_in"] == "30s"
    assert ended.stderr == ""


def test_a_terminal_sees_meanwhile_for_whom_it_waits(watchword: CommandLine, authority: Authority, fleet: None) -> None:
    authority.released.clear()
    ours, theirs = pty.openpty()
    shown = b""
    try:
        process = subprocess.Popen(
            [*WATCHWORD, "revoke"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env={**watchword.environment, "TERM": "xterm", "COLUMNS": "300"},
        )
        assert process.stdin is not None
        process.stdin.write(authority.add())
        process.stdin.close()
        while b"waits for the verifier orders (web-3)" not in shown:
            ready, _, _ = select.select([ours], [], [], PROCESS_SECONDS_MAX)
            assert ready, shown
            shown += os.read(ours, 65_536)
        authority.released.set()
        assert process.stdout is not None
        assert "dead everywhere" in process.stdout.read()
        assert process.wait(PROCESS_SECONDS_MAX) == 0
        process.stdout.close()
    finally:
        authority.released.set()
        os.close(ours)
        os.close(theirs)
