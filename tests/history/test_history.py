"""A fleet of processes through every fault there is: what its callers were told keeps the guarantee.

The short form of `make soak`, with a fixed seed, and caches with a defect, which the checker has to find.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.history.checker import check
from tests.history.events import Decision, History
from tests.history.fleet import EXTRA, LEASE_SECONDS, Fleet, Shape, Verifier, fleet
from tests.history.plan import drawn, short
from tests.history.report import lines
from tests.history.run import callers_of, run
from tests.history.workload import checks, families

SEED = 20_261
BURST_TOKENS_COUNT = 5_000
TEST_SECONDS_MAX = 300
FIND_ROUNDS_MAX = 30


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
    verifiers = {"aio": "lease_ignored", "threads": "lease_ignored"}
    assert found(running, tmp_path, verifiers, "hole") == set(verifiers)


@pytest.mark.timeout(TEST_SECONDS_MAX)
def test_negative_control_a_cache_that_acknowledges_what_it_has_not_applied_is_found(
    running: Fleet, tmp_path: Path
) -> None:
    verifiers = {"aio": "acknowledges_unapplied", "threads": "acknowledges_unapplied"}
    assert found(running, tmp_path, verifiers, "pass") == set(verifiers)


@pytest.mark.timeout(TEST_SECONDS_MAX)
def test_negative_control_a_replica_that_waits_for_nobody_is_found(running: Fleet, tmp_path: Path) -> None:
    """Its COMPLETE is too early by the lease of a sound verifier that is cut off."""
    with running.defective_replica() as address:
        assert found(running, tmp_path, {"aio": "", "threads": ""}, "hole", replicas=[address])


def found(
    running: Fleet, logs: Path, verifiers: Mapping[str, str], mode: str, *, replicas: Sequence[str] = ()
) -> set[str]:
    """Which of these verifiers, by stack and with these defects, accept what is revoked everywhere."""
    wanted = [Verifier(f"{EXTRA}-{stack}", stack, defect) for stack, defect in verifiers.items()]
    running.add_verifiers(*wanted, logs=logs)
    addresses = {stack: running.addresses[f"{EXTRA}-{stack}"] for stack in verifiers}
    callers = callers_of(running, SEED, verifiers=addresses, logs=logs, replicas=replicas)
    time = threading.Event()
    accepting: set[str] = set()
    try:
        callers.start()
        time.wait(LEASE_SECONDS)
        for number in range(FIND_ROUNDS_MAX):
            # Two leases broken, two leases whole, and so on.
            break_wires(running, "pass" if number // 4 % 2 else mode)
            time.wait(LEASE_SECONDS / 2)
            violations = check(History.read(logs), lease_seconds=LEASE_SECONDS).of("revoked")
            seen = [one.record for one in violations if isinstance(one.record, Decision)]
            accepting = {one.verifier for one in seen if one.kind != "judged"}
            if accepting == set(verifiers):
                break
    finally:
        break_wires(running, "pass")
        callers.stop()
        running.retire(*(one.name for one in wanted))
    return accepting


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
