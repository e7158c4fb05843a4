"""An audit export is read as it was written, and what is wrong with it is named by its line, before any deed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from watchword.token import format_token_id, new_token_id
from watchword_server.cli.audit_reading import read_export
from watchword_server.cli.errors import CommandError, ExitCode

ONE, OTHER = new_token_id(1_900_000_000_000), new_token_id(1_900_000_000_001)


def event(token_id: Any = ONE, action: str = "revoke", **details: str) -> dict[str, Any]:
    return {
        "event_id": "e",
        "action": action,
        "token_id": format_token_id(token_id) if token_id else "",
        "details": {"reason": "LEAKED", **details},
    }


def pages(*events: dict[str, Any], next_page_token: str = "") -> str:
    return json.dumps({"events": events, "next_page_token": next_page_token}, indent=2) + "\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "audit.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_token_that_was_ended_comes_with_its_reason(tmp_path: Path) -> None:
    text = pages(event(count="1"), event(OTHER, by_event="e"), event(action="issue"), event(None, subject="a"))
    assert read_export(written(tmp_path, text)).ended == [(ONE, "LEAKED"), (OTHER, "LEAKED")]


def test_what_named_a_token_and_ended_nothing_ends_nothing_now(tmp_path: Path) -> None:
    # Such as a revocation with a wrong secret, or of a token out of the caller's reach.
    assert read_export(written(tmp_path, pages(event(count="0")))).ended == []


def test_what_narrowings_and_rotations_took_is_taken_again(tmp_path: Path) -> None:
    at = "2030-01-01T00:00:00+00:00"
    text = pages(
        event(action="narrow", removed_scopes="a.b c.*", expires_at=at),
        event(action="narrow", removed_scopes="d.e"),
        event(OTHER, action="rotate", successor="x", expires_at=at),
        {**event(OTHER, action="rotation_ended"), "occurred_at": "2030-01-01T00:00:00.5Z"},
        {**event(action="narrow", removed_scopes="x.y"), "outcome": "GRANT_MISSING"},
    )
    instant = datetime(2030, 1, 1, tzinfo=UTC)
    assert read_export(written(tmp_path, text)).losses == [
        (ONE, ("a.b", "c.*"), instant),
        (ONE, ("d.e",), None),
        (OTHER, (), instant),
        (OTHER, (), instant.replace(microsecond=500_000)),
    ]


def test_who_was_blocked_last_is_blocked_again_in_whatever_order_events_come(tmp_path: Path) -> None:
    def at(action: str, subject: str, occurred_at: str) -> dict[str, Any]:
        return {**event(None, action=action, subject=subject), "occurred_at": occurred_at}

    text = pages(
        at("block_subject", "ada", "2030-01-01T00:00:00Z"),
        at("unblock_subject", "bob", "2030-01-01T00:00:00.1Z"),
        at("unblock_subject", "ada", "2029-01-01T00:00:00Z"),
        at("block_subject", "bob", "2030-01-01T00:00:00Z"),
        {**at("block_subject", "eve", "2030-01-01T00:00:00Z"), "outcome": "GRANT_MISSING"},
    )
    assert read_export(written(tmp_path, text)).blocked == {"ada": "LEAKED"}


@pytest.mark.parametrize(
    "text",
    [
        pages(event()) + pages(event(OTHER)),
        json.dumps(event()) + "\n" + json.dumps(event(OTHER)) + "\n",
        "\ufeff" + pages(event(), event(OTHER)),
    ],
    ids=["two exports", "one event a line", "byte order mark"],
)
def test_exports_may_follow_one_another(tmp_path: Path, text: str) -> None:
    export = read_export(written(tmp_path, text))
    assert [token_id for token_id, _ in export.ended] == [ONE, OTHER]
    assert export.whole


def test_an_export_that_was_cut_at_its_limit_is_known(tmp_path: Path) -> None:
    assert not read_export(written(tmp_path, pages(event(), next_page_token="x"))).whole


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(event()) + "\n{broken\n", "line 2: Expecting property name"),
        (json.dumps(event()) + "\n\n[]\n", "line 3: that is no JSON object"),
        (json.dumps(event()) + '\n{"events": 1}', "line 2: `events` is no list"),
        (pages(event()) + pages(event(), {"action": "revoke"}), "event 2 from there"),
        (json.dumps({**event(), "token_id": "x"}), "line 1: event 1"),
        (json.dumps({**event(), "token_id": 7}), "line 1: event 1"),
        (json.dumps({**event(), "details": None}), "line 1: event 1"),
        (json.dumps(event()) + '\n{"events": [', "line 2"),
        (json.dumps(event(action="narrow", expires_at="tomorrow")), "line 1: event 1"),
        (json.dumps(event(action="narrow", expires_at="2030-01-01")), "line 1: event 1"),
        (json.dumps(event(action="block_subject", subject="ada")), "line 1: event 1"),
        (b"{}\n\xff\n", "line 2: that is not text"),
        ('{"a":' * 100_000, "line 1"),
    ],
)
def test_what_is_broken_is_named_by_its_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(CommandError) as caught:
        read_export(written(tmp_path, text))
    assert says in caught.value.message
    assert "Nothing was done" in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


def test_an_export_that_is_not_there_is_said_before_a_database_is_asked_for(
    offline: CommandLine, tmp_path: Path
) -> None:
    ended = offline("db", "restored", "--audit", str(tmp_path / "absent"))
    assert ended.returncode == 2
    assert "cannot read" in ended.stderr


def test_a_broken_export_on_standard_input_is_named(offline: CommandLine) -> None:
    ended = offline("db", "restored", "--audit", "-", stdin="{}\nx")
    assert ended.returncode == 2
    assert "standard input, line 1: event 1" in ended.stderr
