"""What is written: lengths of time, JSON under the API's names, text that cannot drive a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from watchword.v1.token_service_pb2 import IssueResponse, ListScopesResponse, ListTokensResponse, Scope, Token
from watchword_server.cli.durations import format_duration, parse_duration
from watchword_server.cli.output import Output, OutputFormat, instant_and_distance, json_text, message_json, printable


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90d", 7_776_000),
        ("12h", 43_200),
        ("1h30m", 5400),
        ("0.5s", 0.5),
        ("1y", 31_536_000),
        ("250ms", 0.25),
        ("1w", 604_800),
    ],
)
def test_length_of_time_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "90", "d", "-1d", "+1d", "1h 30m", "1h!30m", "1mm", "1D", "nan", "1e3s", "9" * 30 + "y", "1" * 63 + "s", "١d"],
)
def test_length_of_time_that_leaves_doubt_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"length of time|longer than time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.25, "250ms"),
        (0.999, "999ms"),
        (1, "1s"),
        (60, "1m"),
        (3661, "1h1m"),
        (86_400, "1d"),
        (86_460, "1d"),
        (90_061, "1d1h"),
        (-90, "-1m30s"),
    ],
)
def test_length_of_time_is_written_with_two_units(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@given(st.integers(0, 10**10))
def test_written_length_reads_as_no_more_and_nearly_as_much(seconds: int) -> None:
    read = parse_duration(format_duration(timedelta(seconds=seconds)).replace("0ms", "0s"))
    assert timedelta() <= timedelta(seconds=seconds) - read < timedelta(days=1)


def test_distance_is_told_before_at_and_after() -> None:
    token = Token()
    token.expires_at.FromSeconds(1_800_000_000)
    at = datetime.fromtimestamp(1_800_000_000, UTC)
    assert instant_and_distance(token.expires_at, at - timedelta(days=2)) == "2027-01-15T08:00:00Z (in 2d)"
    assert instant_and_distance(token.expires_at, at) == "2027-01-15T08:00:00Z (in 0ms)"
    assert instant_and_distance(token.expires_at, at + timedelta(hours=1)) == "2027-01-15T08:00:00Z (1h ago)"


def test_json_has_numbers_for_counts_and_all_empty_fields() -> None:
    listed = ListScopesResponse(scopes=[Scope(name="a.b", live_tokens=2**63)])
    assert message_json(listed) == {
        "scopes": [{"name": "a.b", "description": "", "owner": "", "live_tokens": 2**63}],
        "next_page_token": "",
    }


def test_json_leaves_maps_and_texts_of_digits_alone() -> None:
    token = message_json(IssueResponse(token=Token(name="12", metadata={"1": "2"})))["token"]
    assert isinstance(token, dict)
    assert (token["name"], token["metadata"]) == ("12", {"1": "2"})
    assert message_json(ListTokensResponse()) == {"tokens": [], "next_page_token": ""}


@given(st.text())
def test_printable_text_never_holds_a_control_character(text: str) -> None:
    assert printable(text).isprintable()


@given(st.dictionaries(st.text(), st.text()))
@example({"name": "\x9b2J", "grün": "\u202edesrever \U000e0041"})
def test_json_never_holds_a_control_character_and_means_the_same(value: dict[str, str]) -> None:
    text = json_text(value, indent=2)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
    assert "ü" in json_text({"k": "ü"})


def test_neither_a_fields_name_nor_its_value_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output(OutputFormat.TABLE).record([("metadata.\x1b]0;name\x07[link=x]a", "\x1b[2J[bold]value")])
    assert capsys.readouterr().out.split() == [
        "metadata.\\x1b]0;name\\x07[link=x]a",
        "\\x1b[2J[bold]value",
    ]
