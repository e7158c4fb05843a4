"""validate_p50_idle_ratio: what a lone caller waits for, beside the two waits that cannot be avoided.

Sharing lookups must not make anyone wait for company: a lookup that comes alone leaves alone, at once.
"""

from __future__ import annotations

from statistics import median
from typing import Final

from bench.authority import Authority, require_only_active
from bench.echo import PAYLOAD
from bench.fetchrow import fetcher
from bench.figures import Figure, Goal, figure_of_rounds, interleaved
from bench.load import Caller, run_one_at_a_time
from bench.stage import Stage

_CALLS_PER_SECOND: Final = 1000
"""Roughly: a round takes about as long as was asked for, and its median rests on so many calls."""


def _validate_p50_us(authority: Authority, caller: Caller, calls: int) -> float:
    before = authority.verdicts()
    result = run_one_at_a_time(authority.target("Validate"), caller, calls=calls)
    require_only_active(before, authority.verdicts(), calls)
    return median(result.latencies_us)


def measure(stage: Stage) -> list[Figure]:
    """Validate p50 / (echo p50 + one prepared fetchrow's p50), all on native and one at a time."""
    loaded, echo = stage.loaded("native"), stage.echo("native")
    calls = max(20, int(stage.plan.seconds * _CALLS_PER_SECOND))
    postgres = loaded.authority.postgres
    echo_caller = Caller(PAYLOAD, loaded.population.issuer_secret)
    verifiers = loaded.population.verifiers

    with fetcher(postgres, postgres.watchword_database()) as fetching:

        def floor(_: int) -> tuple[float, float]:
            answered = run_one_at_a_time(echo.target, echo_caller, calls=calls)
            return median(answered.latencies_us), fetching.p50_us(calls)

        def validate(number: int) -> float:
            caller = verifiers[number % len(verifiers)].unary_caller(number)
            return _validate_p50_us(loaded.authority, caller, calls)

        floor(0)
        validate(0)
        pairs = interleaved(stage.plan.rounds, floor, validate)

    baseline = {
        "echo_p50_us": median(echo_us for (echo_us, _), _ in pairs),
        "fetchrow_p50_us": median(fetch_us for (_, fetch_us), _ in pairs),
        "validate_p50_us": median(whole_us for _, whole_us in pairs),
        "connections": 1,
        "streams": 1,
    }
    ratios = [whole_us / sum(parts) for parts, whole_us in pairs]
    return [figure_of_rounds("validate_p50_idle_ratio", ratios, "ratio", Goal("<=", 1.15), baseline)]
