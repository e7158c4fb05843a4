"""`watchword audit export` writes all events as JSON lines, privately, and says where a part goes on."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import grpc

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.token import format_token_id, new_token_id
from watchword.v1.audit_service_pb2 import AuditEvent
from watchword_server.cli.audit_reading import read_export

REVOKED = new_token_id(1_900_000_000_000)


def fill(authority: Authority, count: int) -> None:
    """So many events, the last of which ended a token, and one that was not allowed to."""
    authority.events = [AuditEvent(event_id=f"e{number}", action="issue", actor="ada") for number in range(count)]
    details = {"reason": "LEAKED", "count": "1"}
    for number, outcome in ((-2, "GRANT_MISSING"), (-1, "allowed")):
        authority.events[number].CopyFrom(
            AuditEvent(
                event_id=f"e{count + number}",
                action="revoke",
                actor="ada",
                outcome=outcome,
                token_id=format_token_id(REVOKED if outcome == "allowed" else new_token_id(1_900_000_000_001)),
                details=details,
            )
        )


def test_every_page_is_written_a_line_an_event(watchword: CommandLine, authority: Authority) -> None:
    fill(authority, 25)
    ended = watchword("audit", "export")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [json.loads(text) for text in ended.stdout.splitlines()]
    assert [event["event_id"] for event in lines] == [f"e{number}" for number in range(25)]
    assert len(authority.requests) == 3


def test_a_file_is_private_and_can_be_done_again_after_a_restore(
    watchword: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    fill(authority, 25)
    file = tmp_path / "audit.jsonl"
    ended = watchword("audit", "export", "--file", str(file))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "25 events" in ended.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    export = read_export(file)
    # What was denied ended nothing, and ends nothing now.
    assert (export.ended, export.whole) == ([(REVOKED, "LEAKED")], True)


def test_a_part_says_where_it_goes_on(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    fill(authority, 25)
    first = watchword("audit", "export", "--limit", "13")
    assert first.returncode == 0
    *_, last = lines = [json.loads(text) for text in first.stdout.splitlines()]
    assert (len(lines), last["events"]) == (14, [])
    (tmp_path / "first").write_text(first.stdout)
    assert not read_export(tmp_path / "first").whole
    rest = watchword("audit", "export", "--page-token", last["next_page_token"])
    assert json.loads(rest.stdout.splitlines()[0])["event_id"] == "e13"
    assert len(rest.stdout.splitlines()) == 12


def test_one_that_breaks_off_says_so_and_leaves_no_file(
    watchword: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    fill(authority, 25)
    authority.refuses_after = 1
    authority.refusal = (grpc.StatusCode.UNAUTHENTICATED, "no more", ())
    ended = watchword("audit", "export")
    assert ended.returncode == 5
    assert json.loads(ended.stdout.splitlines()[-1]) == {"events": [], "next_page_token": "10"}
    assert "--page-token 10" in ended.stderr
    authority.requests.clear()
    assert watchword("audit", "export", "--file", str(tmp_path / "audit.jsonl")).returncode == 5
    assert list(tmp_path.iterdir()) == []


def test_an_outage_of_a_moment_is_outlasted(watchword: CommandLine, authority: Authority) -> None:
    fill(authority, 5)
    authority.refusals_max = 1
    authority.refusal = (grpc.StatusCode.UNAVAILABLE, "no database", ())
    ended = watchword("audit", "export")
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 5)
