"""validate_vs_echo_*, validate_total_us_native: what a Validate costs beside a server that does nothing.

Every call reads its caller's token and the token it asks about from PostgreSQL, in one lookup shared with others.
"""

from __future__ import annotations

from statistics import median

from bench.cost import Cost, calls_for, check_cost, echo_cost
from bench.echo import Transport, echo_callers
from bench.figures import Figure, Goal, figure_of_rounds, interleaved
from bench.load import run_load
from bench.stage import Plan, Stage


def _rounds(stage: Stage, transport: Transport) -> list[tuple[Cost, Cost]]:
    plan = stage.plan
    loaded, echo = stage.loaded(transport), stage.echo(transport)
    population = loaded.population
    floor_callers = echo_callers(plan.processes, population.issuer_secret)
    floor_calls = calls_for(
        plan.seconds,
        plan.processes,
        lambda each: run_load(echo.target, floor_callers, calls_each=each, streams=plan.streams),
    )
    target = loaded.authority.target("Validate")
    calls = calls_for(
        plan.seconds,
        plan.processes,
        lambda each: run_load(target, population.unary_callers(0), calls_each=each, streams=plan.streams),
    )

    def floor(_: int) -> Cost:
        return echo_cost(echo, floor_callers, calls_each=floor_calls, streams=plan.streams)

    def validate(number: int) -> Cost:
        callers = population.unary_callers(number)
        return check_cost(loaded.authority, "Validate", callers, calls_each=calls, streams=plan.streams)

    return interleaved(plan.rounds, floor, validate)


def _baseline(pairs: list[tuple[Cost, Cost]], plan: Plan) -> dict[str, float]:
    return {
        "echo_us": median(floor.server_us for floor, _ in pairs),
        "echo_per_second": median(floor.rate for floor, _ in pairs),
        "validate_us": median(cost.server_us for _, cost in pairs),
        "postgres_us": median(cost.postgres_us for _, cost in pairs),
        "validate_per_second": median(cost.rate for _, cost in pairs),
        **plan.shape(),
    }


def _vs_echo(name: str, bound: float, pairs: list[tuple[Cost, Cost]], plan: Plan) -> Figure:
    ratios = [floor.server_us / cost.server_us for floor, cost in pairs]
    return figure_of_rounds(name, ratios, "ratio", Goal(">=", bound), _baseline(pairs, plan))


def measure_grpcio(stage: Stage) -> list[Figure]:
    """Echo CPU per call / Validate CPU per call, on grpcio."""
    return [_vs_echo("validate_vs_echo_grpcio", 0.75, _rounds(stage, "grpcio"), stage.plan)]


def measure_native(stage: Stage) -> list[Figure]:
    """The same on pygrpc-native, and what server and PostgreSQL take together."""
    pairs = _rounds(stage, "native")
    totals = [cost.total_us for _, cost in pairs]
    total = figure_of_rounds(
        "validate_total_us_native", totals, "us/call", Goal("<=", 150), _baseline(pairs, stage.plan)
    )
    return [_vs_echo("validate_vs_echo_native", 0.45, pairs, stage.plan), total]
