"""Every failure ends with its exit code and says what to do next."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.status import reason_detail, retry_detail
from watchword_server.cli.errors import ExitCode


@pytest.mark.parametrize(
    ("code", "details", "exit_code", "says"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, (reason_detail("TOKEN_INACTIVE"),), ExitCode.DENIED, "WATCHWORD_TOKEN"),
        (
            grpc.StatusCode.PERMISSION_DENIED,
            (reason_detail("SCOPE_MISSING", scope="watchword.read"),),
            ExitCode.DENIED,
            "holds the scope watchword.read",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            (reason_detail("DATABASE_UNAVAILABLE"), retry_detail(2.5)),
            ExitCode.UNAVAILABLE,
            "Try again in 2.5 s",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            (reason_detail("OVERLOADED"), retry_detail(0)),
            ExitCode.UNAVAILABLE,
            "Try again in a moment",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            (reason_detail("RATE_LIMITED"), retry_detail(1.5)),
            ExitCode.UNAVAILABLE,
            "Try again in 1.5 s, and more slowly",
        ),
        (
            grpc.StatusCode.ALREADY_EXISTS,
            (reason_detail("TOKEN_ROTATED", token_id="after"),),
            ExitCode.CONFLICT,
            "watchword rotate after",
        ),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            (reason_detail("TOKEN_NOT_LIVE"),),
            ExitCode.NOTHING_MATCHED,
            "watchword issue",
        ),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            (reason_detail("LAST_ADMINISTRATOR"),),
            ExitCode.CONFLICT,
            "with --force",
        ),
        (
            grpc.StatusCode.PERMISSION_DENIED,
            (reason_detail("SUBJECT_BLOCKED", subject="mallory"),),
            ExitCode.DENIED,
            "watchword subjects unblock mallory",
        ),
        (grpc.StatusCode.ALREADY_EXISTS, (reason_detail("SCOPE_OWNED"),), ExitCode.CONFLICT, "first owner"),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            (reason_detail("DEADLINE_TOO_NEAR"),),
            ExitCode.UNAVAILABLE,
            "Give it more time",
        ),
        (grpc.StatusCode.DEADLINE_EXCEEDED, (), ExitCode.UNAVAILABLE, "--timeout"),
        (grpc.StatusCode.UNIMPLEMENTED, (), ExitCode.INTERNAL, "Is that address a Watchword server"),
        (grpc.StatusCode.INTERNAL, (), ExitCode.INTERNAL, "the server's log"),
    ],
)
def test_refusal_has_exit_code_and_remedy(
    watchword: CommandLine,
    authority: Authority,
    code: grpc.StatusCode,
    details: tuple[Message, ...],
    exit_code: ExitCode,
    says: str,
) -> None:
    authority.refusal = (code, "the reason", details)
    ended = watchword("tokens", "list")
    assert ended.returncode == exit_code
    assert says in ended.stderr
    assert ended.stdout == ""
    assert watchword.caller not in ended.stderr


def test_errors_are_json_for_programs(watchword: CommandLine, authority: Authority) -> None:
    authority.refusal = (grpc.StatusCode.UNAUTHENTICATED, "no", (reason_detail("TOKEN_INACTIVE"),))
    ended = watchword("tokens", "list", WATCHWORD_OUTPUT="json")
    error = json.loads(ended.stderr)["error"]
    assert (ended.returncode, error["exit_code"], error["reason"]) == (5, 5, "TOKEN_INACTIVE")
    assert error["remedy"]


def test_nobody_listening_exits_3(offline: CommandLine) -> None:
    with socket.socket() as taken:
        # Bound and not listening: no other process can answer on it.
        taken.bind(("127.0.0.1", 0))
        ended = offline("tokens", "list", WATCHWORD_TOKEN="t", WATCHWORD_ADDRESS=f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.returncode == 3
    assert "watchword serve" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2, "the library's own complaints are kept out"


def test_secret_without_a_place_is_not_made_and_exits_78(offline: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = offline("bootstrap", WATCHWORD_DATA_DIR=str(tmp_path / "file"))
    assert ended.returncode == 78
    assert "cannot write to" in ended.stderr


def test_no_token_exits_5(offline: CommandLine) -> None:
    ended = offline("tokens", "list")
    assert ended.returncode == 5
    assert "WATCHWORD_TOKEN_FILE" in ended.stderr


@pytest.mark.parametrize("arguments", [["nosuch"], ["issue"], ["tokens", "list", "--limit", "0"], ["-o", "x"]])
def test_misuse_exits_2(offline: CommandLine, arguments: list[str]) -> None:
    assert offline(*arguments).returncode == 2


def test_defect_tells_its_place_and_none_of_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from watchword_server.cli import program, run

    def broken() -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(program, "build", broken)
    assert run.run([]) == ExitCode.INTERNAL
    said = capsys.readouterr().err
    assert "RuntimeError at test_errors.py:" in said
    assert "canary" not in said
