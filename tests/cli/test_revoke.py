"""`watchword revoke` ends what was named, asks before ending many, and says when nothing matched."""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.v1.token_service_pb2 import PROPAGATION_PENDING, TOKEN_STATE_LIVE, TOKEN_STATE_REVOKED, RevokeRequest


def test_token_on_standard_input_is_revoked(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    ended = watchword("revoke", "--reason", "LEAKED", stdin=secret)
    assert ended.returncode == 0
    assert "COMPLETE" in ended.stdout
    assert authority.tokens[secret].state == TOKEN_STATE_REVOKED
    assert authority.requests == [RevokeRequest(token=secret, reason="LEAKED")]


def test_pending_says_until_when(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    secret = authority.add()
    ended = watchword("revoke", "--no-wait", "--id", authority.tokens[secret].token_id)
    assert ended.returncode == 0
    assert "PENDING" in ended.stdout
    assert "within 30s" in ended.stdout
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
