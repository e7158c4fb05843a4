"""`watchword rotate` shows the successor's secret once, says who still uses the old one, and loses no reply."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.status import reason_detail
from watchword.v1.token_service_pb2 import (
    PROPAGATION_PENDING,
    TOKEN_STATE_REVOKED,
    RotateRequest,
    ServiceUse,
    Token,
)


def newest(authority: Authority) -> tuple[str, Token]:
    return list(authority.tokens.items())[-1]


def rotations(authority: Authority) -> list[RotateRequest]:
    return [request for request in authority.requests if isinstance(request, RotateRequest)]


def test_the_own_token_is_rotated_without_an_id(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("rotate")
    secret, token = newest(authority)
    assert ended.returncode == 0, ended.stderr
    assert token.predecessor_id == authority.tokens[watchword.caller].token_id
    assert ended.stdout.count(secret) == 1
    assert secret not in ended.stderr
    assert "go on with the old one" in ended.stderr


def test_what_was_asked_for_is_sent(watchword: CommandLine, authority: Authority) -> None:
    token_id = authority.tokens[authority.add()].token_id
    ended = watchword("rotate", token_id, "--ttl", "12h", "--grace", "10m", "--request-id", "r1", "--quiet")
    assert ended.stdout == newest(authority)[0] + "\n"
    (request,) = rotations(authority)
    assert (request.token_id, request.ttl.seconds, request.grace.seconds) == (token_id, 43_200, 600)
    assert request.request_id == "r1"


def test_neither_ttl_nor_grace_means_the_servers(watchword: CommandLine, authority: Authority) -> None:
    watchword("rotate")
    (request,) = rotations(authority)
    assert not request.HasField("ttl")
    assert not request.HasField("grace")
    assert request.request_id.startswith("cli-")


def test_who_still_uses_the_old_one_is_said(watchword: CommandLine, authority: Authority) -> None:
    old = authority.tokens[authority.add()]
    use = ServiceUse(service="orders-service", address="10.1.2.3", use_count=41, scopes=["orders.read"])
    use.last_used_at.FromJsonString("2026-01-31T12:00:00Z")
    old.usage.services.append(use)
    ended = watchword("rotate", old.token_id)
    assert f"The old one, {old.token_id}, ends " in ended.stderr
    for shown in ("orders-service", "10.1.2.3", "2026-01-31T12:00:00Z", "41"):
        assert shown in ended.stdout


def test_an_old_one_that_nobody_was_seen_with_is_said_to_be_so(watchword: CommandLine, authority: Authority) -> None:
    assert "Nobody was seen with it" in watchword("rotate", authority.tokens[authority.add()].token_id).stderr


def test_end_now_waits_and_says_how_far_it_is(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("rotate", authority.tokens[authority.add()].token_id, "--end-now")
    assert ended.returncode == 0
    assert "COMPLETE: dead everywhere" in ended.stderr
    (request,) = rotations(authority)
    assert request.HasField("grace")
    assert request.grace.seconds == 0


def test_end_now_that_is_pending_exits_7_with_the_secret_shown(
    watchword: CommandLine, authority: Authority, fleet: None
) -> None:
    authority.propagation = PROPAGATION_PENDING
    ended = watchword("rotate", authority.tokens[authority.add()].token_id, "--end-now", "--quiet")
    assert ended.returncode == 7
    assert ended.stdout == newest(authority)[0] + "\n"
    assert "the verifier orders (web-3)" in ended.stderr


def test_a_grace_that_is_pending_is_no_failure(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    assert watchword("rotate").returncode == 0


def test_json_is_the_whole_response(watchword: CommandLine, authority: Authority) -> None:
    old = authority.tokens[authority.add()]
    answer = json.loads(watchword("rotate", old.token_id, "-o", "json").stdout)
    assert answer["secret"] == newest(authority)[0]
    assert answer["rotated"]["successor_id"] == answer["token"]["token_id"]


@pytest.fixture
def token_file(watchword: CommandLine, authority: Authority, tmp_path: Path) -> Path:
    """The caller's own token, in a file that others may read, with a link to it."""
    kept = tmp_path / "secrets"
    kept.mkdir()
    (kept / "token").write_text(watchword.caller)
    (kept / "token").chmod(0o644)
    link = tmp_path / "token"
    link.symlink_to(kept / "token")
    del watchword.environment["WATCHWORD_TOKEN"]
    return link


def test_in_place_replaces_the_own_token_file(watchword: CommandLine, authority: Authority, token_file: Path) -> None:
    ended = watchword("rotate", "--in-place", "--token-file", str(token_file))
    secret, _ = newest(authority)
    assert ended.returncode == 0, ended.stderr
    assert token_file.read_text() == secret + "\n"
    assert token_file.is_symlink()
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert secret not in ended.stdout + ended.stderr
    # And calls with the file go on with the new one.
    assert watchword("whoami", "--token-file", str(token_file)).returncode == 0
    assert authority.bearers[-1] == secret


def test_in_place_knows_the_file_out_of_the_environment(
    watchword: CommandLine, authority: Authority, token_file: Path
) -> None:
    ended = watchword("rotate", "--in-place", "-o", "json", WATCHWORD_TOKEN_FILE=str(token_file))
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["secret"] == ""
    assert token_file.read_text().strip() == newest(authority)[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--in-place"], "did not come from one"),
        (["--in-place", "some-id"], "--in-place is for your own token"),
        (["--in-place", "--secret-file", "x"], "--in-place is for your own token"),
        (["--end-now", "--grace", "1h"], "exclude each other"),
    ],
)
def test_what_is_not_clear_rotates_nothing(
    watchword: CommandLine, authority: Authority, arguments: list[str], says: str
) -> None:
    ended = watchword("rotate", *arguments)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert authority.requests == []


def test_a_secret_without_a_place_is_not_made(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "secret", tmp_path):
        ended = watchword("rotate", "--secret-file", str(place))
        assert ended.returncode == 78
        assert "Nothing was asked of the server" in ended.stderr
    assert authority.requests == []


def test_a_lost_reply_is_asked_for_again_and_leaves_one_successor(watchword: CommandLine, authority: Authority) -> None:
    authority.lost_replies = 1
    old = authority.tokens[authority.add()]
    ended = watchword("rotate", old.token_id, "--quiet")
    assert ended.returncode == 0, ended.stderr
    first, second = rotations(authority)
    assert first.request_id == second.request_id
    *_, lost, made = authority.tokens.values()
    assert (lost.state, old.successor_id) == (TOKEN_STATE_REVOKED, made.token_id)
    assert ended.stdout == newest(authority)[0] + "\n"


def test_no_reply_at_all_names_the_request_id_that_mends_it(watchword: CommandLine, authority: Authority) -> None:
    authority.lost_replies = 9
    ended = watchword("rotate")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert f"--request-id {rotations(authority)[0].request_id}" in ended.stderr


def test_an_own_token_that_ended_with_the_lost_reply_is_explained(watchword: CommandLine, authority: Authority) -> None:
    authority.lost_replies = 1
    authority.refusal = (grpc.StatusCode.UNAUTHENTICATED, "not active", (reason_detail("TOKEN_INACTIVE"),))
    authority.refuses_after = 1
    ended = watchword("rotate", "--end-now")
    assert ended.returncode == 5
    assert "its successor's secret is lost" in ended.stderr


def test_who_was_too_late_is_told_the_successor(watchword: CommandLine, authority: Authority) -> None:
    old = authority.tokens[authority.add()]
    watchword("rotate", old.token_id)
    ended = watchword("rotate", old.token_id)
    assert ended.returncode == 6
    assert f"the successor is {old.successor_id}" in ended.stderr
    assert len(rotations(authority)) == 2
