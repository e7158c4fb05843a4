"""usage_share, usage_writes_per_token_interval: what it costs to know who uses which token.

The one verifier counts and does not, in turn: two processes of the same program differ by more than counting costs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Final

from bench.authority import Authority, data_folder, serving
from bench.echo import PAYLOAD
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.load import Caller, run_load
from bench.postgres import Postgres
from bench.rows.interceptor import knowing_service
from bench.service import ProtectedService
from bench.stage import Stage

_WALKS_PER_SECOND: Final = 20_000
_CALLS_EACH: Final = 200
_INTERVAL_SECONDS: Final = 2.0
_TOKENS: Final = 64
_PAUSE_SECONDS: Final = 0.1
_WRITTEN: Final = (
    "select coalesce(sum(n_tup_ins + n_tup_upd), 0) from pg_stat_user_tables where relname like 'token_usage_%'"
)


def measure(stage: Stage) -> list[Figure]:
    """CPU per cached check, without a network: counted - not counted / the whole of a checked call."""
    plan, loaded = stage.plan, stage.loaded("native")
    verifier = loaded.population.verifiers[0]
    tokens = verifier.tokens[: plan.processes]
    walks = max(100, int(plan.seconds * _WALKS_PER_SECOND))
    with knowing_service(loaded.authority, verifier, tokens) as service:

        def walk(*, counted: bool, count: int) -> float:
            service.count_uses(counted)
            return service.walk("cached", tokens, count)

        def one_round(number: int) -> dict[str, float]:
            sides = interleaved(
                plan.slices,
                lambda _: walk(counted=True, count=walks // plan.slices + 1),
                lambda _: walk(counted=False, count=walks // plan.slices + 1),
            )
            # All of these are the first of their tokens since they were last reported: the longer way.
            first = [walk(counted=True, count=len(tokens)) for _ in range(plan.slices) if service.count_uses(False)]
            return {
                "counted_us": median(counted for counted, _ in sides),
                "uncounted_us": median(uncounted for _, uncounted in sides),
                "first_use_us": median(first),
                "call_us": _call_us(service, tokens, plan.streams),
            }

        rounds = [one_round(number) for number in range(plan.rounds)]
    baseline = {name: median(one[name] for one in rounds) for name in rounds[0]}
    shares = [(one["counted_us"] - one["uncounted_us"]) / one["call_us"] for one in rounds]
    return [figure_of_rounds("usage_share", shares, "of a call", Goal("<=", 0.03), baseline)]


def _call_us(service: ProtectedService, tokens: Sequence[str], streams: int) -> float:
    """A whole checked call, with its network."""
    began = service.cpu_ns()
    callers = [Caller(PAYLOAD, token) for token in tokens]
    result = run_load(service.target("cached"), callers, calls_each=_CALLS_EACH, streams=streams)
    return (service.cpu_ns() - began) / 1000 / result.calls


def measure_writes(stage: Stage) -> list[Figure]:
    """Rows written / (tokens x intervals), while every token is used at one service all the time."""
    plan = stage.plan
    with data_folder() as data_dir, serving(data_dir, "native", usage_interval_seconds=_INTERVAL_SECONDS) as authority:
        population = stage.populate(authority)
        verifier = population.verifiers[0]
        tokens = verifier.tokens[:_TOKENS]
        with knowing_service(authority, verifier, tokens) as service:
            service.walk("cached", tokens, len(tokens))
            began, before = _at_a_flush(authority, service, tokens)
            ended, after = began, before
            while ended - began < plan.usage_intervals * _INTERVAL_SECONDS:
                ended, after = _at_a_flush(authority, service, tokens)
    intervals = (ended - began) / _INTERVAL_SECONDS
    # The service's own token is in use as well: it reports with it.
    value = (after - before) / ((len(tokens) + 1) * intervals)
    if after - before < len(tokens):
        raise MeasurementError(f"{after - before} rows were written for {len(tokens)} tokens in use")
    baseline = {"tokens": len(tokens), "intervals": intervals, "interval_seconds": _INTERVAL_SECONDS}
    goal = Goal("<=", 1.0)
    return [figure_of_rounds("usage_writes_per_token_interval", [round(value, 3)], "rows", goal, baseline)]


def _at_a_flush(authority: Authority, service: ProtectedService, tokens: Sequence[str]) -> tuple[float, int]:
    """Right after the next one: when it was, and what has been written by then. The tokens are in use meanwhile."""
    postgres: Postgres = authority.postgres
    database = postgres.watchword_database()
    before = _written(postgres, database)
    end = time.monotonic() + 60
    while (written := _written(postgres, database)) == before:
        if time.monotonic() > end:
            raise MeasurementError("no use of a token was stored")
        service.walk("cached", tokens, len(tokens))
        time.sleep(_PAUSE_SECONDS)
    return time.monotonic(), written


def _written(postgres: Postgres, database: str) -> int:
    ((count,),) = postgres.query(_WRITTEN, database)
    return int(count)
