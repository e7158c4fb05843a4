"""The costs that docs/revocation.md states are those of the protocol as it is written."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from bench.cost_of_watching import formula, simulated


@pytest.mark.parametrize(("verifiers", "replicas"), [(1, 1), (10, 2), (60, 3), (240, 2)])
@pytest.mark.parametrize("lease_seconds", [30.0, 60.0])
def test_what_the_formula_says_is_what_the_protocol_does(verifiers: int, replicas: int, lease_seconds: float) -> None:
    cost, _ = simulated(verifiers, replicas, lease_seconds, seconds=lease_seconds * 2)

    assert astuple(cost) == pytest.approx(astuple(formula(verifiers, replicas, lease_seconds)), rel=1e-6)


def test_no_message_of_a_fleet_at_rest_exceeds_what_is_documented() -> None:
    _, traffic = simulated(10, 2, 60.0, seconds=60.0)

    assert {kind: round(traffic.size_bytes[kind] / count) for kind, count in traffic.messages.items()} == {
        "renew": 38,
        "grant": 48,
        "changes": 40,
        "acknowledge": 38,
    }
