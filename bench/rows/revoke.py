"""revoke_everywhere_p99_ms, revoke_frozen_seconds: how long it takes until nothing in a fleet accepts a token."""

from __future__ import annotations

import os
import signal
from statistics import median, quantiles
from typing import Final

from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds
from bench.fleet import Fleet, id_of
from bench.stage import Stage
from bench.watchers import Watching, watching
from watchword.v1 import token_service_pb2 as pb

_LEARNT_MAX: Final = 5
"""Tokens that every verifier knew before they were revoked: afterwards none may accept them."""
_FROZEN_ROUNDS_MAX: Final = 3


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[-1]


def measure(stage: Stage) -> list[Figure]:
    """Revoke by id until COMPLETE, with many verifiers on two replicas, at each replica in turn."""
    plan, fleet = stage.plan, stage.fleet()
    rounds: list[list[float]] = []
    with watching(fleet.ports, fleet.verifier.secret, count=plan.verifiers) as watchers:
        fleet.wait_until_counted(plan.verifiers)
        for _ in range(plan.rounds):
            tokens = fleet.issue(plan.revocations)
            known = tokens[:_LEARNT_MAX]
            watchers.learn(known)
            rounds.append([_revoked_ms(fleet, token, at, plan.verifiers) for at, token in enumerate(tokens)])
            if watchers.accepting(known):
                raise MeasurementError("a revoked token is accepted")
    baseline = {
        "p50_ms": median(median(one) for one in rounds),
        "max_ms": max(map(max, rounds)),
        "verifiers": plan.verifiers,
        "replicas": len(fleet.replicas),
        "revocations": plan.revocations,
    }
    return [figure_of_rounds("revoke_everywhere_p99_ms", list(map(_p99, rounds)), "ms", Goal("<=", 50), baseline)]


def _revoked_ms(fleet: Fleet, token: str, at: int, verifiers: int) -> float:
    seconds, reply = fleet.revoke(pb.RevokeRequest(token_id=id_of(token)), at=at)
    if (reply.revoked_count, reply.replicas_count, reply.verifiers_count) != (1, len(fleet.replicas), verifiers):
        raise MeasurementError(f"not one token, on all replicas, with all verifiers: {reply}")
    return seconds * 1000


def measure_frozen(stage: Stage) -> list[Figure]:
    """Revoke until COMPLETE while one verifier is stopped: its lease has to run out."""
    plan, fleet = stage.plan, stage.fleet()
    lease_seconds = plan.frozen_lease_seconds
    rounds: list[float] = []
    with watching(fleet.ports, fleet.verifier.secret, count=1, lease_seconds=lease_seconds) as watchers:
        for _ in range(min(plan.rounds, _FROZEN_ROUNDS_MAX)):
            watchers.wait_until_caching()
            [token] = fleet.issue(1)
            watchers.learn([token])
            rounds.append(_frozen_seconds(fleet, watchers, token))
    goal = Goal("<=", lease_seconds * 1.05 + 1)
    return [figure_of_rounds("revoke_frozen_seconds", rounds, "s", goal, {"lease_seconds": lease_seconds})]


def _frozen_seconds(fleet: Fleet, watchers: Watching, token: str) -> float:
    os.kill(watchers.child.pid, signal.SIGSTOP)
    try:
        seconds, reply = fleet.revoke(pb.RevokeRequest(token_id=id_of(token)))
    finally:
        os.kill(watchers.child.pid, signal.SIGCONT)
    if reply.revoked_count != 1 or watchers.accepting([token]):
        raise MeasurementError("the token was not revoked")
    return seconds
