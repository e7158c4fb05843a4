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
from tests.history.events import History
from tests.history.fleet import EXTRA, LEASE_SECONDS, Fleet, Shape, fleet
from tests.history.plan import drawn, short
from tests.history.report import lines
from tests.history.run import callers_of, run
from tests.history.workload import checks, families

SEED = 20_261
BURST_TOKENS_COUNT = 5_000
TEST_SECONDS_MAX = 300


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
@pytest.mark.parametrize("stack", ["aio", "threads"])
@pytest.mark.parametrize(
    ("defect", "mode"), [("lease_ignored", "hole"), ("acknowledges_unapplied", "pass"), ("", "hole")]
)
def test_negative_control_a_defective_cache_is_found(
    running: Fleet, tmp_path: Path, stack: str, defect: str, mode: str
) -> None:
    """Its wires are broken for two leases, which a sound cache stands."""
    name = f"{defect or 'sound'}-{stack}"
    running.verifier(name, stack, logs=tmp_path, defect=defect)
    callers = callers_of(running, SEED, verifiers={name: running.addresses[name]}, logs=tmp_path)
    time = threading.Event()
    try:
        callers.start()
        time.wait(LEASE_SECONDS)
        break_wires(running, mode)
        time.wait(2 * LEASE_SECONDS)
        callers.tell({"stop": True})
    finally:
        break_wires(running, "pass")
        callers.stop()
        running.retire(name)
    found = check(History.read(tmp_path), lease_seconds=LEASE_SECONDS)
    assert bool(found.of("revoked")) == bool(defect), found.violations[:3]


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
