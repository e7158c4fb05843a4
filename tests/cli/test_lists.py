"""Lists follow the server's pages to the limit, and keep what a server sends from driving the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.v1.audit_service_pb2 import AuditEvent
from watchword.v1.token_service_pb2 import TOKEN_KIND_SESSION, TOKEN_STATE_EXPIRED


def test_list_follows_pages_to_the_end(watchword: CommandLine, authority: Authority) -> None:
    for number in range(24):
        authority.add(f"shop-{number}")
    answer = json.loads(watchword("tokens", "list", "-o", "json").stdout)
    assert [token["subject"] for token in answer["tokens"]] == ["admin", *(f"shop-{number}" for number in range(24))]
    assert answer["next_page_token"] == ""


def test_list_stops_at_the_limit_and_goes_on_from_there(watchword: CommandLine, authority: Authority) -> None:
    for number in range(24):
        authority.add(f"shop-{number}")
    first = json.loads(watchword("tokens", "list", "-o", "json", "--limit", "13").stdout)
    rest = json.loads(watchword("tokens", "list", "-o", "json", "--page-token", first["next_page_token"]).stdout)
    assert (len(first["tokens"]), len(rest["tokens"])) == (13, 12)


def test_table_cuts_no_id_and_says_that_there_are_more(watchword: CommandLine, authority: Authority) -> None:
    secrets = [authority.add() for _ in range(11)]
    ended = watchword("tokens", "list", "--limit", "10", COLUMNS="40")
    assert all(authority.tokens[secret].token_id in ended.stdout for secret in secrets[:9])
    assert "--page-token 10" in ended.stderr


def test_names_cannot_drive_the_terminal(watchword: CommandLine, authority: Authority) -> None:
    authority.add(name="\x1b[2J[bold]\u202egreen")
    ended = watchword("tokens", "list")
    assert "\x1b" not in ended.stdout
    assert "\\x1b[2J[bold]\\u202egreen" in ended.stdout


def test_record_is_shown_by_id_and_by_secret(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add("shop", metadata={"team": "a"})
    by_id = watchword("tokens", "show", authority.tokens[secret].token_id)
    by_secret = watchword("tokens", "show", stdin=secret)
    assert by_id.returncode == by_secret.returncode == 0
    assert "metadata.team" in by_id.stdout
    assert by_id.stdout == by_secret.stdout
    assert secret not in by_secret.stdout


def test_unknown_id_exits_4(watchword: CommandLine) -> None:
    ended = watchword("tokens", "show", "nosuchid")
    assert ended.returncode == 4
    assert "watchword tokens list" in ended.stderr


def test_scopes_are_registered_from_arguments_and_file(
    watchword: CommandLine, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "scopes"
    file.write_text("# ours\norders.write:Change: orders\n\n")
    ended = watchword("scopes", "register", "orders.read:See orders", "--file", str(file))
    assert (ended.returncode, ended.stdout) == (0, "2 new, 0 updated\n")
    listed = json.loads(watchword("scopes", "list", "-o", "json").stdout)["scopes"]
    assert [(scope["name"], scope["description"]) for scope in listed] == [
        ("orders.read", "See orders"),
        ("orders.write", "Change: orders"),
    ]
    assert listed[0]["live_tokens"] == 3


def test_audit_events_are_listed_since_an_instant(watchword: CommandLine, authority: Authority) -> None:
    event = AuditEvent(action="issue", actor="admin", details={"subject": "shop", "scopes": "a b"})
    event.occurred_at.FromJsonString("2026-01-31T11:00:00Z")
    authority.events.append(event)
    ended = watchword("audit", "list", "--since", "2026-01-31T12:00:00+01:00", "--actor", "admin")
    assert ended.returncode == 0
    assert "scopes=a b  subject=shop" in ended.stdout
    assert authority.requests[-1].since.ToJsonString() == "2026-01-31T11:00:00Z"  # type: ignore[attr-defined]


def test_reader_that_goes_away_is_no_error(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword.into_closed_pipe("tokens", "list")
    assert (ended.returncode, ended.stderr) == (141, "")


def test_an_idle_session_is_said_to_have_ended_of_that(watchword: CommandLine, authority: Authority) -> None:
    """Its hard end lies ahead, so the state alone would leave whoever looks with a riddle."""
    token = authority.tokens[authority.add(kind=TOKEN_KIND_SESSION)]
    token.state = TOKEN_STATE_EXPIRED
    token.idle_expires_at.FromJsonString("2026-02-01T12:30:00Z")
    shown = watchword("tokens", "show", token.token_id).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("idle_expires_at")]
    assert line.endswith(", for want of use")
    token.idle_expires_at.FromMilliseconds(token.expires_at.ToMilliseconds() + 1)
    shown = watchword("tokens", "show", token.token_id).stdout
    assert "want of use" not in shown
    assert "unless it is used" not in shown
