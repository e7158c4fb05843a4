"""The property holds in random histories, and the model is not about nothing."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model import controls, walks
from tests.model.machine import Machine
from tests.model.parts import Parts
from tests.model.stories import AFTER_LEASE, accepts, attached, is_complete, revoke
from tests.model.world import World

EXAMPLES_MAX = 60
WALKS_MAX = 150
SEARCH_MAX = 200
DRAWN = settings(
    max_examples=EXAMPLES_MAX,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "watchword")


def test_no_decision_invoked_after_complete_accepts() -> None:
    """In histories that Hypothesis draws, and shrinks should one of them say otherwise."""
    run_state_machine_as_test(Machine, settings=DRAWN)


def test_no_walk_breaks_the_guarantee() -> None:
    """In many more, which together have hits, joined lookups and revocations that were complete."""
    hits = joins = completions = 0
    for number in range(WALKS_MAX):
        steps = walks.walk(number)
        if walks.breaks(steps, Parts()):
            pytest.fail(f"walk {number}: {walks.shrunk(steps, Parts())}")
        world = walks.play(steps, Parts()).world
        hits, joins, completions = hits + world.hits, joins + world.joins, completions + world.completions
    assert min(hits, joins, completions) > 0


# Each with the number of a walk that found it, to begin with.
@pytest.mark.parametrize(
    ("control", "begin"),
    [
        pytest.param(controls.ACKNOWLEDGING_ON_WRITE, 3, id="acknowledging_on_write"),
        pytest.param(controls.ANSWER_BELOW_FLOOR, 53, id="answer_below_floor"),
        pytest.param(controls.DRAIN_DELETES_ROW_FIRST, 347, id="drain_deletes_row_first"),
        pytest.param(controls.INSERT_OUTSIDE_LOCK, 67, id="insert_outside_lock"),
        pytest.param(controls.LEASE_BY_TIMER_FLAG, 4, id="lease_by_timer_flag"),
        pytest.param(controls.LEASE_READ_AFTER_ENTRY, 306, id="lease_read_after_entry"),
        pytest.param(controls.NO_RECENT_CHANGE_CHECK, 67, id="no_recent_change_check_on_fill"),
        pytest.param(controls.OTHER_REPLICAS_NOT_AWAITED, 3, id="other_replicas_not_awaited"),
        pytest.param(controls.RECORD_DROPPED_WITH_STREAM, 42, id="record_dropped_with_stream"),
        pytest.param(controls.REGISTERED_AFTER_LOOKUP, 859, id="registering_after_lookup"),
        pytest.param(controls.REUSED_VERIFIER_KEY, 67, id="reused_verifier_key"),
        pytest.param(controls.TIMEOUT_WITHOUT_FENCING, 60, id="timeout_without_fencing"),
    ],
)
def test_negative_control_is_found_by_a_walk(control: Parts, begin: int) -> None:
    """Nobody told the walk where to look."""
    found = walks.first_to_break(control, range(begin, begin + SEARCH_MAX))
    assert found is not None
    assert not walks.breaks(walks.walk(found), Parts())


def test_healthy_fleet_hits_and_completes() -> None:
    """Without faults tokens are remembered for longer than a lease, and a Revoke is complete with no time passing."""
    world = World()
    verifier, _ = attached(world)
    world.healthy(3 * AFTER_LEASE)
    hits = world.hits
    assert accepts(world, verifier)
    assert world.hits == hits + 1
    revoke(world)
    world.settle()
    assert is_complete(world)
    assert accepts(world, verifier) is False
