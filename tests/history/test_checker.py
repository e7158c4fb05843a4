"""The checker sees each rule broken, in histories made by hand, and leaves sound ones alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.history.checker import EXPIRY_SLACK_SECONDS, Findings, check
from tests.history.events import Decision, Fault, History, Issue, Lag, Log, Record, Revoke, Rotate, Status
from tests.history.fleet_facts import IDLE_SECONDS_MAX
from tests.history.vacuity import hits_between, missing

LEASE_SECONDS = 2.0
BOUND_SECONDS = 3.1


def issue(token: str = "t", *, at: float = 0.0, subject: str = "s", by: str = "", ttl: float = 1000.0) -> Issue:
    return Issue(token, subject, by, ttl, at, at + 1, "acknowledged")


def revoke(value: str = "t", *, by: str = "token_id", at: float = 10.0, took: float = 1.0, **fields: object) -> Revoke:
    made = Revoke(by, value, cascade=False, waits=True, invoked=at, returned=at + took, outcome="complete")
    return replace(made, **fields)  # type: ignore[arg-type]  # the fields are of many types


def rotate(token: str = "t", successor: str = "u", *, at: float = 5.0, grace: float = 10.0, **fields: object) -> Rotate:
    made = Rotate(token, successor, grace, invoked=at, returned=at + 1, outcome="complete")
    return replace(made, **fields)  # type: ignore[arg-type]  # the fields are of many types


def decision(outcome: str, *, at: float, token: str = "t", kind: str = "unary", took: float = 0.5) -> Decision:
    return Decision(token, kind, "v", at, at + took, outcome, "UNAVAILABLE" if outcome == "unavailable" else "OK")


def findings(*records: Record) -> Findings:
    return check(History.of(records), lease_seconds=LEASE_SECONDS)


def rules(*records: Record) -> list[str]:
    return [violation.rule for violation in findings(*records).violations]


@pytest.mark.parametrize("kind", ["unary", "message", "judged"])
def test_accepting_after_a_complete_revoke_is_seen(kind: str) -> None:
    history = (issue(), revoke(), decision("accept", at=11.1, kind=kind))
    assert rules(*history) == ["revoked"]


@pytest.mark.parametrize("at", [9.0, 10.5, 11.0])
def test_a_decision_invoked_before_the_revoke_returned_may_go_either_way(at: float) -> None:
    assert rules(issue(), revoke(), decision("accept", at=at, took=5)) == []
    assert rules(issue(), revoke(), decision("inactive", at=at, took=5)) == []


def test_a_message_invoked_after_it_on_a_stream_opened_before_is_seen() -> None:
    before = decision("accept", at=9.0, kind="message")
    assert rules(issue(), before, revoke(), decision("accept", at=12, kind="message")) == ["revoked"]


def test_a_complete_revoke_counts_by_its_return_though_another_one_is_pending() -> None:
    pending = revoke(at=9, took=0.5, outcome="pending", waits=False, effective_seconds=100.0)
    assert rules(issue(), pending, revoke(), decision("accept", at=10.6)) == []
    assert rules(issue(), pending, revoke(), decision("accept", at=11.1)) == ["revoked"]


def test_accepting_after_a_pending_revokes_own_bound_is_seen() -> None:
    pending = revoke(outcome="pending", waits=False, effective_seconds=2.0)
    assert rules(issue(), pending, decision("accept", at=12.9)) == []
    assert rules(issue(), pending, decision("accept", at=13.1)) == ["bounded"]


def test_denying_an_acknowledged_token_is_seen() -> None:
    assert rules(issue(), decision("inactive", at=1.1)) == ["alive"]


def test_a_token_whose_issue_has_not_returned_may_be_unknown() -> None:
    assert rules(issue(), decision("inactive", at=0.9)) == []


def test_being_told_unavailable_is_honest() -> None:
    assert rules(issue(), decision("unavailable", at=5)) == []
    assert rules(issue(), revoke(), decision("unavailable", at=15)) == []


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"])
def test_being_told_anything_else_is_seen(code: str) -> None:
    assert rules(issue(), replace(decision("unavailable", at=5), code=code)) == ["unforeseen"]


def test_denying_before_the_revoke_was_invoked_is_seen_and_during_it_is_not() -> None:
    assert rules(issue(), revoke(), decision("inactive", at=9.0)) == ["alive"]
    assert rules(issue(), revoke(), decision("inactive", at=9.8)) == []


@pytest.mark.parametrize("outcome", ["unknown", "pending"])
def test_a_revoke_without_a_final_answer_may_be_done_or_not(outcome: str) -> None:
    """Which is ambiguous stays so: neither verdict is held against anybody, however much later."""
    ambiguous = revoke(outcome=outcome, waits=False, effective_seconds=1000.0)
    for verdict in ("accept", "inactive"):
        assert rules(issue(), ambiguous, decision(verdict, at=50)) == []


def test_an_unanswered_revoke_of_a_subject_may_reach_tokens_issued_after_it_gave_up() -> None:
    unknown = revoke("s", by="subject", outcome="unknown", waits=False)
    assert rules(unknown, issue(at=20), decision("inactive", at=30)) == []
    assert rules(revoke("s", by="subject"), issue(at=20), decision("inactive", at=30)) == ["alive"]


def test_a_refused_revoke_did_nothing() -> None:
    assert rules(issue(), revoke(outcome="refused"), decision("inactive", at=20)) == ["alive"]
    assert rules(issue(), revoke(outcome="refused"), decision("accept", at=20)) == []


def test_an_unanswered_issue_names_no_token_and_harms_nothing() -> None:
    lost = Issue("", "s", "", 10.0, 0.0, 5.0, "unknown")
    assert rules(lost, revoke("s", by="subject")) == []


def test_a_revoke_of_a_subject_ends_what_was_issued_before_it_was_invoked() -> None:
    history = (issue("a"), issue("b"), issue("c", at=9.5), revoke("s", by="subject"))
    late = [decision("accept", at=20, token=token) for token in "abc"]
    assert [one.record for one in findings(*history, *late).of("revoked")] == late[:2]


def test_a_revoke_by_issuer_ends_children_and_a_cascade_their_children_too() -> None:
    family = (issue("a"), issue("b", at=2, by="a"), issue("c", at=4, by="b"))
    late = [decision("accept", at=20, token=token) for token in "abc"]

    def ended(end: Revoke) -> list[str]:
        found = findings(*family, end, *late).of("revoked")
        return [one.record.token for one in found if isinstance(one.record, Decision)]

    assert ended(revoke("a")) == ["a"]
    assert ended(revoke("a", by="issued_by")) == ["b"]
    assert ended(revoke("a", by="issued_by", cascade=True)) == ["b", "c"]
    assert ended(revoke("a", cascade=True)) == ["a", "b", "c"]


def test_expiry_excuses_a_denial_and_convicts_an_acceptance() -> None:
    short = issue(ttl=10)
    assert rules(short, decision("inactive", at=9)) == ["alive"]
    assert rules(short, decision("inactive", at=10)) == []
    assert rules(short, decision("accept", at=11)) == []
    assert rules(short, decision("accept", at=11.01 + EXPIRY_SLACK_SECONDS)) == ["expired"]


def test_a_rotated_token_lives_through_its_grace_and_no_longer() -> None:
    rotated = (issue(), issue("u", at=5), rotate())
    assert rules(*rotated, decision("inactive", at=14)) == ["alive"]
    assert rules(*rotated, decision("inactive", at=15.5), decision("accept", at=16)) == []
    assert rules(*rotated, decision("accept", at=16.01 + EXPIRY_SLACK_SECONDS)) == ["expired"]
    assert rules(*rotated, decision("inactive", at=20, token="u")) == ["alive"]


def test_what_not_all_were_told_may_be_accepted_as_long_as_the_answer_said() -> None:
    ended = rotate(grace=0, outcome="pending", effective_seconds=2.0)
    assert rules(issue(), ended, decision("accept", at=8)) == []
    assert rules(issue(), ended, decision("accept", at=8.01 + EXPIRY_SLACK_SECONDS)) == ["expired"]


def test_a_rotation_without_an_answer_may_be_done_or_not_and_a_refused_one_is_not() -> None:
    unknown = rotate(successor="", grace=0, outcome="unknown")
    assert rules(issue(), unknown, decision("inactive", at=20), decision("accept", at=21)) == []
    refused = rotate(successor="", grace=0, outcome="refused")
    assert rules(issue(), refused, decision("inactive", at=20)) == ["alive"]


def test_what_is_tied_ends_with_the_latest_of_its_lineage() -> None:
    tied = replace(issue("c", at=2, by="t"), tied=True)
    family = (issue(), tied, issue("u", at=5), rotate(grace=1000.0))
    late = decision("accept", at=30, token="c")
    assert rules(*family, revoke("u"), late) == ["revoked"]
    assert rules(*family, revoke("t"), late) == []
    assert rules(issue(), tied, revoke("t"), late) == ["revoked"]
    assert rules(issue(), replace(tied, tied=False), revoke("t"), late) == []


def test_whether_the_tied_end_is_open_while_it_is_unknown_whether_there_is_a_successor() -> None:
    tied = replace(issue("c", at=2, by="t"), tied=True)
    unknown = rotate(successor="", grace=1000.0, outcome="unknown")
    for verdict in ("accept", "inactive"):
        assert rules(issue(), tied, unknown, revoke("t"), decision(verdict, at=30, token="c")) == []


def test_a_cascade_takes_successors_and_what_they_issued() -> None:
    family = (issue(), issue("u", at=5), rotate(grace=1000.0), issue("d", at=7, by="u"))
    late = [decision("accept", at=20, token=token) for token in "tud"]
    found = findings(*family, revoke(cascade=True), *late).of("revoked")
    assert [one.record for one in found] == late


def test_narrowing_ends_what_the_scope_was_for_and_nothing_else() -> None:
    tied = replace(issue("c", at=2, by="t"), tied=True)
    narrowed = (issue(), tied, revoke(by="narrow"))
    assert rules(*narrowed, decision("accept", at=20)) == ["revoked"]
    assert rules(*narrowed, decision("inactive", at=20)) == []
    assert rules(*narrowed, decision("accept", at=20, token="c")) == []
    assert rules(*narrowed, decision("inactive", at=20, token="c")) == ["alive"]


def test_a_session_that_nobody_used_is_over() -> None:
    session = replace(issue(), idle_seconds=5.0)
    assert rules(session, decision("inactive", at=4)) == ["alive"]
    assert rules(session, decision("inactive", at=5)) == []
    assert rules(session, decision("accept", at=1 + IDLE_SECONDS_MAX)) == []
    assert rules(session, decision("accept", at=1.1 + IDLE_SECONDS_MAX)) == ["idle"]
    used = decision("accept", at=10)
    assert rules(session, used, decision("accept", at=10.4 + IDLE_SECONDS_MAX)) == []
    assert rules(session, used, decision("accept", at=10.6 + IDLE_SECONDS_MAX)) == ["idle"]


def test_a_revoke_slower_than_the_lease_allows_is_seen() -> None:
    assert rules(issue(), revoke(took=BOUND_SECONDS - 0.01)) == []
    assert rules(issue(), revoke(took=BOUND_SECONDS + 1.1)) == ["slow"]


def test_a_pending_answer_where_only_verifiers_were_frozen_is_seen() -> None:
    frozen = Fault("stop", "verifier", 5, 20, verifiers_only=True)
    assert rules(issue(), frozen, revoke(outcome="pending")) == ["slow"]
    assert rules(issue(), frozen, revoke(outcome="unknown", took=20)) == ["slow"]


def test_a_revoke_during_or_soon_after_other_faults_may_be_slow() -> None:
    assert rules(issue(), Fault("stop", "replica", 5, 12), revoke(took=15)) == []
    assert rules(issue(), Fault("stop", "replica", 5, 9), revoke(took=15)) == []
    assert rules(issue(), Fault("stop", "replica", 5, 9), revoke(at=30, took=15)) == ["slow"]


def test_a_revoke_that_was_late_by_what_the_machine_was_is_counted_apart() -> None:
    slow = revoke(took=BOUND_SECONDS + 3)
    found = findings(issue(), Lag(12, 2.5), slow)
    assert (found.violations, found.late) == ([], [slow])
    assert rules(issue(), Lag(5, 2.5), slow) == ["slow"]


def test_decisions_that_tested_the_first_rule_are_counted() -> None:
    assert findings(issue(), revoke(), decision("inactive", at=20)).denied_after_complete == 1
    assert findings(issue(), revoke(), decision("inactive", at=10.5)).denied_after_complete == 0


def sound_run() -> list[Record]:
    return [
        issue(),
        decision("accept", at=5, kind="message"),
        *(Status("v", at, hits, 0, attached=True) for at, hits in [(1, 0), (9, 5), (31, 6), (39, 9)]),
        revoke(),
        decision("inactive", at=20),
        revoke(at=35),
        rotate(),
        revoke(by="narrow", at=36),
        replace(issue("c"), tied=True, idle_seconds=1.0),
    ]


def test_a_sound_run_lacks_nothing() -> None:
    history = History.of(sound_run())
    assert list(missing(history, check(history, lease_seconds=LEASE_SECONDS), quiet_since=30)) == []


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        (1, "no message passed"),
        (3, "while there were faults"),
        (5, "after the faults"),
        (7, "no revoked token was presented"),
        (9, "no token was rotated"),
        (10, "no token was narrowed"),
        (11, "no token was tied"),
    ],
)
def test_a_run_that_tested_nothing_is_no_success(left_out: int, said: str) -> None:
    history = History.of(record for number, record in enumerate(sound_run()) if number != left_out)
    found = list(missing(history, check(history, lease_seconds=LEASE_SECONDS), quiet_since=30))
    assert len(found) == 1
    assert said in found[0]


def test_hits_are_counted_across_a_restart() -> None:
    counts = [(0, 7), (1, 9), (2, 3), (3, 4)]
    assert hits_between([Status("v", at, hits, 0, attached=True) for at, hits in counts], 0, 10) == 6


def test_records_come_back_from_their_files_and_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    records = sound_run()
    with Log(tmp_path / "one.jsonl") as log:
        for record in records:
            log.write(record)
    with (tmp_path / "one.jsonl").open("a") as torn:
        torn.write('{"record": "iss')
    assert History.read(tmp_path) == History.of(records)
