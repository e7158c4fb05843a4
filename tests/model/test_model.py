"""The property holds in random histories, and the model is not about nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine

MODEL = settings(
    max_examples=150,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_no_decision_invoked_after_complete_accepts() -> None:
    run_state_machine_as_test(Machine, settings=MODEL)
