"""cache_bytes_per_entry, million_hit_ratio, million_renewal_ratio: what many remembered tokens cost a service."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Final

from bench.conversation import Child, child
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.stage import Plan, Stage

_HITS_PER_SECOND: Final = 20_000
_RENEWALS_PER_SECOND: Final = 5_000
_PRESENTED_MAX: Final = 100_000
"""Of those remembered, so many are presented, at random."""
_BYTES_ROUNDS_MAX: Final = 3


def _grow(running: Child, entries: int, keep: int = 0) -> dict[str, int]:
    grown: dict[str, int] = running.ask("grow", entries=entries, keep=keep)
    if grown["entries"] != entries:
        raise MeasurementError(f"{grown['entries']} of {entries} tokens are remembered")
    return grown


def measure(stage: Stage) -> list[Figure]:
    """Growth of a process / tokens that its verifier came to know; a process of its own for each round."""
    entries = stage.plan.entries
    rounds = []
    for _ in range(min(stage.plan.rounds, _BYTES_ROUNDS_MAX)):
        with child("bench.memory") as running:
            rounds.append(_grow(running, entries))
    baseline = {"entries": entries, "said_bytes_per_entry": median(one["said_bytes"] for one in rounds) / entries}
    each = [one["bytes"] / entries for one in rounds]
    return [figure_of_rounds("cache_bytes_per_entry", each, "bytes", Goal("<=", 700), baseline)]


def _both(plan: Plan, cost_us: Callable[[int], float]) -> list[tuple[float, float]]:
    return interleaved(plan.rounds, lambda _: cost_us(plan.entries_many), lambda _: cost_us(plan.entries_few))


def measure_many(stage: Stage) -> list[Figure]:
    """A hit, and a renewal, with very many tokens remembered / with few, in one process."""
    plan = stage.plan
    hits = max(100, int(plan.seconds * _HITS_PER_SECOND))
    renewals = max(10, int(plan.seconds * _RENEWALS_PER_SECOND))
    with child("bench.memory") as running:
        for entries in (plan.entries_few, plan.entries_many):
            _grow(running, entries, min(entries, _PRESENTED_MAX))

        def hit_us(entries: int) -> float:
            answer = running.ask("hit_us", entries=entries, count=hits)
            if answer["hits"] != answer["calls"]:
                raise MeasurementError("not every call was a hit")
            return float(answer["us"])

        def renewal_us(entries: int) -> float:
            return float(running.ask("renewal_us", entries=entries, count=renewals))

        figures = []
        for name, cost_us in (("million_hit_ratio", hit_us), ("million_renewal_ratio", renewal_us)):
            pairs = _both(plan, cost_us)
            baseline = {
                "many_us": median(many for many, _ in pairs),
                "few_us": median(few for _, few in pairs),
                "many": plan.entries_many,
                "few": plan.entries_few,
            }
            ratios = [many / few for many, few in pairs]
            figures.append(figure_of_rounds(name, ratios, "ratio", Goal("<=", 1.2), baseline))
    return figures
