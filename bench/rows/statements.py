"""sql_per_validate: how well concurrent checks share their lookups.

PostgreSQL counts (pg_stat_statements), so nothing that the server does beside the lookups is left out.
"""

from __future__ import annotations

from statistics import median

from bench.authority import data_folder, serving
from bench.cost import calls_for, check_cost
from bench.figures import Figure, Goal, figure_of_rounds
from bench.load import run_load
from bench.postgres import Postgres
from bench.stage import Stage


def _statements(postgres: Postgres, database: str) -> int:
    # Without its own: the counting must not be counted.
    ((count,),) = postgres.query(
        "select coalesce(sum(calls), 0) from pg_stat_statements"
        " where toplevel and query not like '%pg_stat_statements%'",
        database,
    )
    return int(count)


def measure(stage: Stage) -> list[Figure]:
    """Statements per Validate at c = 64, on native, on a server of its own whose PostgreSQL counts them."""
    plan = stage.plan
    with data_folder() as data_dir:
        with serving(data_dir, "native") as authority:
            authority.postgres.query("alter system set shared_preload_libraries = 'pg_stat_statements'")
        # The counting module is loaded at the start of PostgreSQL or not at all.
        with serving(data_dir, "native") as authority:
            postgres = authority.postgres
            database = postgres.watchword_database()
            postgres.query("create extension if not exists pg_stat_statements", database)
            population = stage.populate(authority)
            target = authority.target("Validate")
            calls = calls_for(
                plan.seconds,
                plan.processes,
                lambda each: run_load(target, population.unary_callers(0), calls_each=each, streams=plan.streams),
            )
            shares: list[float] = []
            rates: list[float] = []
            for number in range(plan.rounds):
                before = _statements(postgres, database)
                callers = population.unary_callers(number)
                cost = check_cost(authority, "Validate", callers, calls_each=calls, streams=plan.streams)
                shares.append((_statements(postgres, database) - before) / (calls * plan.processes))
                rates.append(cost.rate)
    baseline = {"validate_per_second": median(rates), **plan.shape()}
    return [figure_of_rounds("sql_per_validate", shares, "statements/call", Goal("<=", 0.1), baseline)]
