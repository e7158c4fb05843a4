"""`watchword issue` sends what was asked for and shows the secret once, where it was asked to."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.status import FieldViolation, field_detail, reason_detail
from watchword.v1.token_service_pb2 import (
    TOKEN_KIND_PERSONAL,
    TOKEN_KIND_SERVICE,
    TOKEN_KIND_SESSION,
    Grant,
    IssueRequest,
)
from watchword_server.cli.errors import CommandError
from watchword_server.cli.issue import parse_grant, parse_metadata

ISSUE = ("issue", "--subject", "shop", "--audience", "orders", "--scope", "orders.read")


def issued_secret(authority: Authority) -> str:
    return list(authority.tokens)[-1]


def test_quiet_prints_the_secret_alone(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword(*ISSUE, "--quiet")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, issued_secret(authority) + "\n", "")


def test_table_shows_record_and_secret_once_with_a_warning(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword(*ISSUE)
    secret = issued_secret(authority)
    assert ended.returncode == 0
    assert ended.stdout.count(secret) == 1
    assert "orders.read" in ended.stdout
    assert secret not in ended.stderr
    assert "shown this once" in ended.stderr


def test_json_is_the_whole_response(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword(*ISSUE, "--output", "json", "--metadata", "team=a=b")
    answer = json.loads(ended.stdout)
    assert ended.stderr == ""
    assert answer["secret"] == issued_secret(authority)
    assert answer["token"]["token_id"] == authority.tokens[answer["secret"]].token_id
    assert answer["token"]["metadata"] == {"team": "a=b"}
    assert answer["token"]["grants"] == []
    assert answer["token"]["expires_at"].endswith("Z")


def test_everything_asked_for_is_sent(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword(
        *ISSUE,
        *("--scope", "orders.write", "--ttl", "1h30m", "--name", "nightly", "--metadata", "team=shop"),
        *("--request-id", "r1", "--grant", "scopes=orders.*,subjects=shop/*,audiences=orders"),
        *("--grant", '{"scopes": ["a.b"], "subjects": ["x"], "audiences": ["y"]}'),
    )
    assert ended.returncode == 0, ended.stderr
    (request,) = authority.requests
    assert request.scopes == ["orders.read", "orders.write"]  # type: ignore[attr-defined]
    assert request.ttl.seconds == 5400  # type: ignore[attr-defined]
    assert request.request_id == "r1"  # type: ignore[attr-defined]
    assert list(request.grants) == [  # type: ignore[attr-defined]
        Grant(scopes=["orders.*"], subjects=["shop/*"], audiences=["orders"]),
        Grant(scopes=["a.b"], subjects=["x"], audiences=["y"]),
    ]


def test_session_personal_and_tied_tokens_are_asked_for(watchword: CommandLine, authority: Authority) -> None:
    watchword(*ISSUE, "--kind", "session", "--idle", "30m", "--tied")
    watchword(*ISSUE, "--kind", "personal", "--owner", "ada")
    watchword(*ISSUE)
    session, personal, plain = (one for one in authority.requests if isinstance(one, IssueRequest))
    assert (session.kind, session.idle_timeout.seconds, session.tied) == (TOKEN_KIND_SESSION, 1800, True)
    assert (personal.kind, personal.owner) == (TOKEN_KIND_PERSONAL, "ada")
    assert (plain.kind, plain.tied) == (TOKEN_KIND_SERVICE, False)
    assert not plain.HasField("idle_timeout")


def test_renewable_adds_the_audience_that_calls_to_watchword_need(watchword: CommandLine, authority: Authority) -> None:
    for more in (("--renewable",), ("--renewable", "--audience", "watchword"), ()):
        watchword(*ISSUE, *more)
    assert [list(one.audiences) for one in authority.requests if isinstance(one, IssueRequest)] == [
        ["orders", "watchword"],
        ["orders", "watchword"],
        ["orders"],
    ]


def test_secret_goes_into_a_file_and_nowhere_else(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for arguments in ((), ("--quiet",), ("-o", "json")):
        ended = watchword(*ISSUE, "--secret-file", str(file), *arguments)
        assert ended.returncode == 0, ended.stderr
        assert file.read_text() == issued_secret(authority) + "\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert issued_secret(authority) not in ended.stdout + ended.stderr


def test_secret_without_a_place_is_not_made(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = watchword(*ISSUE, "--secret-file", str(tmp_path / "file" / "secret"))
    assert ended.returncode == 78
    assert authority.requests == []


def test_request_id_used_before_names_the_token_to_revoke(watchword: CommandLine) -> None:
    first = json.loads(watchword(*ISSUE, "--request-id", "r1", "--output", "json").stdout)
    again = watchword(*ISSUE, "--request-id", "r1")
    assert again.returncode == 6
    assert again.stdout == ""
    assert f"watchword revoke --id {first['token']['token_id']}" in again.stderr


def test_refused_fields_are_named(watchword: CommandLine, authority: Authority) -> None:
    violation = FieldViolation("scopes[0]", "unknown scope; the nearest known one is orders.read")
    authority.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "bad", (field_detail(violation),))
    ended = watchword(*ISSUE)
    assert ended.returncode == 2
    assert "scopes[0]: unknown scope; the nearest known one is orders.read" in ended.stderr


def test_missing_grant_is_explained(watchword: CommandLine, authority: Authority) -> None:
    authority.refusal = (grpc.StatusCode.PERMISSION_DENIED, "no grant", (reason_detail("GRANT_MISSING"),))
    ended = watchword(*ISSUE)
    assert ended.returncode == 5
    assert "Nobody gives what they do not hold" in ended.stderr


def test_unknown_outcome_names_the_request_id_that_tells(watchword: CommandLine, authority: Authority) -> None:
    authority.refusal = (grpc.StatusCode.DEADLINE_EXCEEDED, "late", ())
    ended = watchword(*ISSUE)
    (request,) = authority.requests
    assert ended.returncode == 3
    assert f"--request-id {request.request_id}" in ended.stderr  # type: ignore[attr-defined]


def test_lost_secret_says_which_token_to_revoke(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword.into_closed_pipe(*ISSUE, "--quiet")
    assert ended.returncode == 141
    assert f"watchword revoke --id {authority.tokens[issued_secret(authority)].token_id}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_neither_secret_is_in_the_process_arguments(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    with subprocess.Popen(
        [*WATCHWORD, "validate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=watchword.environment,
    ) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        stdout, stderr = process.communicate(secret.encode(), timeout=PROCESS_SECONDS_MAX)
    assert process.returncode == 0
    for canary in (secret.encode(), watchword.caller.encode()):
        assert canary not in arguments + stdout + stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scopes",
        "scopes=",
        "a.*",
        "scopes=a,subjects=b",
        "scopes=a,subjects=b,audiences=c,extra=d",
        "scopes=a,,subjects=b,audiences=c",
        "{",
        "{}",
        "[]",
        '{"scopes": "a", "subjects": ["b"], "audiences": ["c"]}',
        '{"scopes": [1], "subjects": ["b"], "audiences": ["c"]}',
    ],
)
def test_grant_that_leaves_doubt_is_refused(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_grant(text)
    assert refused.value.exit_code == 2


def test_grant_lists_go_on_until_the_next_name() -> None:
    assert parse_grant("scopes=a.*, b.*,subjects=x,audiences=y,scopes=c") == Grant(
        scopes=["a.*", "b.*", "c"], subjects=["x"], audiences=["y"]
    )


@pytest.mark.parametrize("pairs", [["key"], ["=value"], ["a=1", "a=2"]])
def test_metadata_that_leaves_doubt_is_refused(pairs: list[str]) -> None:
    with pytest.raises(CommandError):
        parse_metadata(pairs)


def test_length_of_life_that_is_none_is_refused(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword(*ISSUE, "--ttl", "90 days")
    assert ended.returncode == 2
    assert "90d, 12h, 30m" in ended.stderr
    assert authority.requests == []
