"""batch_validate_tokens_per_call_cost: what one of 256 tokens in a BatchValidate costs beside a Validate of its own.

PostgreSQL is in both sides: left out, a batch could look cheap by moving its work there.
"""

from __future__ import annotations

from statistics import median

from bench.cost import Cost, calls_for, check_cost
from bench.figures import Figure, Goal, figure_of_rounds, interleaved
from bench.load import run_load
from bench.stage import Stage


def measure(stage: Stage) -> list[Figure]:
    """CPU per token at 256 per BatchValidate / CPU per unary Validate, on native."""
    plan, loaded = stage.plan, stage.loaded("native")
    authority, population = loaded.authority, loaded.population
    batch_callers = [verifier.batch_caller(plan.batch_size) for verifier in population.verifiers]
    batch_callers = batch_callers[: plan.batch_processes]
    batches = calls_for(
        plan.seconds,
        len(batch_callers),
        lambda each: run_load(
            authority.target("BatchValidate"), batch_callers, calls_each=max(1, each // 25), streams=1
        ),
    )
    calls = calls_for(
        plan.seconds,
        plan.processes,
        lambda each: run_load(
            authority.target("Validate"), population.unary_callers(0), calls_each=each, streams=plan.streams
        ),
    )

    def batch(_: int) -> Cost:
        return check_cost(
            authority,
            "BatchValidate",
            batch_callers,
            calls_each=batches,
            streams=1,
            tokens_per_call=plan.batch_size,
        )

    def unary(number: int) -> Cost:
        callers = population.unary_callers(number)
        return check_cost(authority, "Validate", callers, calls_each=calls, streams=plan.streams)

    pairs = interleaved(plan.rounds, batch, unary)
    ratios = [many.total_us / plan.batch_size / one.total_us for many, one in pairs]
    baseline = {
        "server_us_per_token": median(many.server_us / plan.batch_size for many, _ in pairs),
        "postgres_us_per_token": median(many.postgres_us / plan.batch_size for many, _ in pairs),
        "tokens_per_second": median(many.rate * plan.batch_size for many, _ in pairs),
        "validate_server_us": median(one.server_us for _, one in pairs),
        "validate_postgres_us": median(one.postgres_us for _, one in pairs),
        "tokens_per_batch": plan.batch_size,
        "batch_connections": len(batch_callers),
        **plan.shape(),
    }
    name = "batch_validate_tokens_per_call_cost"
    return [figure_of_rounds(name, ratios, "ratio", Goal("<=", 0.15), baseline)]
