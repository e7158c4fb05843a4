"""A fleet of processes through every fault there is: what its callers were told keeps the guarantee.

The short form of `make soak`, with a fixed seed, and caches with a defect, which the checker has to find.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.history.checker import check
from tests.history.events import Decision, History
from tests.history.fleet import EXTRA, LEASE_SECONDS, Fleet, Shape, fleet
from tests.history.plan import drawn, short
from tests.history.report import lines
from tests.history.run import callers_of, run
from tests.history.workload import checks, families

SEED = 20_261
BURST_TOKENS_COUNT = 5_000
TEST_SECONDS_MAX = 300
FIND_ROUNDS_MAX = 30
FIND_ROUND_SECONDS = 1.0


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    """One fleet for all: two replicas, the second of two processes, and a verifier on each stack."""
    with fleet(Shape(workers=2)) as made:
        yield made


@pytest.mark.timeout(TEST_SECONDS_MAX)
def test_the_guarantee_holds_through_every_fault(running: Fleet) -> None:
    outcome = run(running, [short()], seed=SEED, burst_tokens_count=BURST_TOKENS_COUNT)
    said = "\n".join(lines(outcome))
    assert outcome.findings.violations == [], said
    assert outcome.missing == [], said


@pytest.mark.timeout(TEST_SECONDS_MAX)
def test_negative_control_a_cache_that_ignores_its_lease_is_found(running: Fleet, tmp_path: Path) -> None:
    """Cut off from the authority, it hears of no revocation and goes on."""
    assert defects_found(running, tmp_path, "lease_ignored", "hole") == {"lease_ignored-aio", "lease_ignored-threads"}


@pytest.mark.timeout(TEST_SECONDS_MAX)
def test_negative_control_a_cache_that_acknowledges_what_it_has_not_applied_is_found(
    running: Fleet, tmp_path: Path
) -> None:
    assert defects_found(running, tmp_path, "acknowledges_unapplied", "pass") == {
        "acknowledges_unapplied-aio",
        "acknowledges_unapplied-threads",
    }


def defects_found(running: Fleet, logs: Path, defect: str, mode: str) -> set[str]:
    """Which of two verifiers with a defect, one on each stack, accept what is revoked everywhere."""
    names = [f"{defect}-{stack}" for stack in ("aio", "threads")]
    for name in names:
        running.verifier(name, name.rpartition("-")[2], logs=logs, defect=defect)
    callers = callers_of(running, SEED, verifiers={name: running.addresses[name] for name in names}, logs=logs)
    time = threading.Event()
    found: set[str] = set()
    try:
        callers.start()
        time.wait(LEASE_SECONDS)
        break_wires(running, mode)
        for _ in range(FIND_ROUNDS_MAX):
            time.wait(FIND_ROUND_SECONDS)
            violations = check(History.read(logs), lease_seconds=LEASE_SECONDS).of("revoked")
            found = {one.record.verifier for one in violations if isinstance(one.record, Decision)}
            if found == set(names):
                break
    finally:
        break_wires(running, "pass")
        callers.stop()
        for name in names:
            running.retire(name)
    return found


def break_wires(running: Fleet, mode: str) -> None:
    for link in running.links_of(EXTRA):
        running.break_link(link, mode)


def test_a_seed_makes_the_same_choices_again() -> None:
    def first(values: Iterator[object]) -> list[object]:
        return list(islice(values, 50))

    assert first(drawn(7)) == first(drawn(7))
    assert first(drawn(7)) != first(drawn(8))
    assert first(families(7, 1, lease_seconds=2)) == first(families(7, 1, lease_seconds=2))
    assert first(checks(7, "a", lease_seconds=2)) == first(checks(7, "a", lease_seconds=2))
    assert first(checks(7, "a", lease_seconds=2)) != first(checks(7, "b", lease_seconds=2))
