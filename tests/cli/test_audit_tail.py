"""`watchword audit tail --follow` shows each event once, however late it was committed, and outlasts an outage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.status import reason_detail
from watchword.v1.audit_service_pb2 import AuditEvent, ListEventsRequest

BEGIN: Final = 1_769_860_800
EVERY: Final = ("--every", "100ms")


def happen(authority: Authority, event_id: str, *, at: int, action: str = "issue", **fields: Any) -> None:
    """Something at so many seconds after the beginning, seen from now on. Newest first, as the service has them."""
    event = AuditEvent(event_id=event_id, action=action, **{"actor": "ada", "outcome": "allowed", **fields})
    event.occurred_at.FromSeconds(BEGIN + at)
    authority.events = sorted([*authority.events, event], key=lambda one: one.occurred_at.seconds, reverse=True)


@contextmanager
def following(watchword: CommandLine, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`audit tail --follow` as a process; whatever happens it ends with the block."""
    process = subprocess.Popen(
        [*WATCHWORD, "audit", "tail", "--follow", *EVERY, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=watchword.environment,
    )
    # A line that never comes must not hold the suite.
    watchdog = threading.Timer(2 * PROCESS_SECONDS_MAX, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(PROCESS_SECONDS_MAX)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def looks(authority: Authority) -> int:
    return sum(isinstance(request, ListEventsRequest) for request in authority.requests)


def after_more_looks(authority: Authority, count: int) -> None:
    """Waits until it has looked so many times more."""
    wanted = looks(authority) + count
    reached = threading.Event()
    for _ in range(10 * PROCESS_SECONDS_MAX):
        if looks(authority) >= wanted:
            return
        reached.wait(0.1)
    raise AssertionError("it looks no more")


def test_the_latest_come_last_a_line_each(watchword: CommandLine, authority: Authority) -> None:
    for number in range(30):
        happen(authority, f"e{number}", at=number)
    happen(
        authority, "denied", at=40, action="revoke", outcome="SCOPE_MISSING", token_id="t1", details={"k": "v\x1b[2J"}
    )
    ended = watchword("audit", "tail", "--limit", "3")
    assert ended.returncode == 0, ended.stderr
    *_, last = lines = ended.stdout.splitlines()
    assert len(lines) == 3
    assert last.split() == ["2026-01-31T12:00:40Z", "revoke", "SCOPE_MISSING", "ada", "-", "t1", "k=v\\x1b[2J"]
    assert lines[0].startswith("2026-01-31T12:00:28Z")


def test_where_there_is_nothing_it_says_so_and_a_program_is_spared_it(
    watchword: CommandLine, authority: Authority
) -> None:
    """A misspelt action has no events either."""
    happen(authority, "one", at=0, action="rotate")
    ended = watchword("audit", "tail", "--action", "rotat")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "No events.\n")
    ended = watchword("audit", "tail", "--action", "rotat", "-o", "json")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    with following(watchword, "--action", "rotat") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "No events so far.\n"


def test_json_lines_are_whole_events(watchword: CommandLine, authority: Authority) -> None:
    happen(authority, "one", at=0, details={"subject": "shop"})
    happen(authority, "two", at=1)
    lines = [json.loads(text) for text in watchword("audit", "tail", "-o", "json").stdout.splitlines()]
    assert [event["event_id"] for event in lines] == ["one", "two"]
    assert (lines[0]["outcome"], lines[0]["details"]) == ("allowed", {"subject": "shop"})


def test_filters_are_asked_for(watchword: CommandLine, authority: Authority) -> None:
    watchword("audit", "tail", "--denied", "--action", "revoke", "--actor", "ada", "--id", "x", "--since", "2h")
    last = authority.requests[-1]
    assert isinstance(last, ListEventsRequest)
    assert (last.denied_only, last.action, last.actor, last.token_id) == (True, "revoke", "ada", "x")
    assert last.HasField("since")


def test_what_was_there_and_not_asked_for_is_no_news(watchword: CommandLine, authority: Authority) -> None:
    for number in range(30):
        happen(authority, f"e{number}", at=number)
    with following(watchword, "--limit", "2") as process:
        assert [line(process)[:20] for _ in range(2)] == ["2026-01-31T12:00:28Z", "2026-01-31T12:00:29Z"]
        after_more_looks(authority, 3)
        # Begun minutes ago, as a large revocation is.
        happen(authority, "late", at=-500)
        assert "11:51:40Z" in line(process)


def test_what_comes_is_shown_once_in_order_and_late_commits_too(watchword: CommandLine, authority: Authority) -> None:
    happen(authority, "before", at=100)
    with following(watchword) as process:
        assert "12:01:40Z" in line(process)
        happen(authority, "next", at=110)
        assert "12:01:50Z" in line(process)
        # Begun before the one that was seen, and committed after it.
        happen(authority, "late", at=90)
        assert "12:01:30Z" in line(process)
        after_more_looks(authority, 3)
        happen(authority, "end", at=111)
        assert "12:01:51Z" in line(process)


def test_only_what_is_new_is_asked_for_also_where_nothing_wanted_happens(
    watchword: CommandLine, authority: Authority
) -> None:
    happen(authority, "old", at=0)
    with following(watchword, "--action", "revoke") as process:
        after_more_looks(authority, 2)
        happen(authority, "other", at=1000)
        after_more_looks(authority, 6)
        asked = [one for one in authority.requests if isinstance(one, ListEventsRequest) and one.action]
        # Half a minute back, and now and then ten.
        assert asked[-1].since.seconds in (BEGIN + 1000 - 30, BEGIN + 1000 - 600)
        happen(authority, "wanted", at=1001, action="revoke")
        assert "12:16:41Z  revoke" in line(process)


def test_its_own_looks_are_left_out(watchword: CommandLine, authority: Authority) -> None:
    own = authority.tokens[watchword.caller].token_id
    with following(watchword) as process:
        after_more_looks(authority, 2)
        happen(authority, "own", at=1, action="list_events", actor_token_id=own)
        happen(authority, "others", at=2, action="list_events", actor_token_id="other")
        assert "12:00:02Z" in line(process)
        happen(authority, "refused", at=3, action="list_events", actor_token_id=own, outcome="SCOPE_MISSING")
        assert "12:00:03Z" in line(process)


def test_an_outage_is_said_and_outlasted(watchword: CommandLine, authority: Authority) -> None:
    happen(authority, "before", at=0)
    with following(watchword) as process:
        assert "12:00:00Z" in line(process)
        authority.refusal = (grpc.StatusCode.UNAVAILABLE, "no database", (reason_detail("DATABASE_UNAVAILABLE"),))
        assert process.stderr is not None
        assert "no database" in process.stderr.readline()
        after_more_looks(authority, 3)
        happen(authority, "meanwhile", at=1)
        authority.refusal = None
        assert "12:00:01Z" in line(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PROCESS_SECONDS_MAX) == 130
        said = process.stderr.read()
        assert "There is an answer again." in said
        assert "no database" not in said, "it is said once"
        assert "Traceback" not in said


def test_a_refusal_ends_it(watchword: CommandLine, authority: Authority) -> None:
    with following(watchword) as process:
        after_more_looks(authority, 2)
        authority.refusal = (grpc.StatusCode.UNAUTHENTICATED, "no", (reason_detail("TOKEN_INACTIVE"),))
        assert process.wait(PROCESS_SECONDS_MAX) == 5


def test_a_service_that_is_not_there_to_begin_with_ends_it(watchword: CommandLine, authority: Authority) -> None:
    authority.refusal = (grpc.StatusCode.UNAVAILABLE, "no database", ())
    with following(watchword) as process:
        assert process.wait(PROCESS_SECONDS_MAX) == 3


def test_a_reader_that_goes_away_ends_it_also_if_nothing_happens(watchword: CommandLine, authority: Authority) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*WATCHWORD, "audit", "tail", "--follow", *EVERY],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=watchword.environment,
    )
    os.close(writing)
    try:
        after_more_looks(authority, 3)
        os.close(reading)
        _, said = process.communicate(timeout=PROCESS_SECONDS_MAX)
        assert (process.returncode, said) == (141, "No events so far.\n")
    finally:
        with suppress(ProcessLookupError):
            process.kill()


@pytest.mark.parametrize("every", ["10ms", "often"])
def test_too_often_is_refused(watchword: CommandLine, authority: Authority, every: str) -> None:
    assert watchword("audit", "tail", "--follow", "--every", every).returncode == 2
    assert authority.requests == []
