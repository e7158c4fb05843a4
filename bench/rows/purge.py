"""purge_1m_ms, purge_p99_ratio: dropping a partition of very many expired tokens, and what checks notice of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

from bench.authority import Authority, data_folder, require_only_active, serving
from bench.cost import calls_for
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds
from bench.grown import Holder, fill, holder_of, settle
from bench.load import Timed, run_load, run_timed
from bench.population import Population
from bench.stage import Plan, Stage
from watchword_server.store.database import Database
from watchword_server.store.partitions import Partition
from watchword_server.store.purge import Purge, Retention, purge

_ROUNDS_MAX: Final = 3
_RETENTION: Final = Retention.of_days(30, 400)
_FIRST: Final = datetime(2020, 1, 1, tzinfo=UTC)
_LENGTH: Final = timedelta(days=30)
_BEGUN_SHARE: Final = 0.4
"""Of a window, before the purge begins in it."""


@dataclass(frozen=True, slots=True)
class Round:
    """Milliseconds."""

    purge: float
    before_p99: float
    meanwhile_p99: float
    overlapping_p99: float
    """Of the calls that were under way while the purge was."""
    worst: float


def measure(stage: Stage) -> list[Figure]:
    """Purging a partition of expired tokens; and p99 of Validate in a window with it / in one without, native."""
    plan = stage.plan
    with data_folder() as folder, serving(folder, "native") as authority:
        population = stage.populate(authority)
        count = min(plan.rounds, _ROUNDS_MAX)
        rounds = [_round(authority, population, plan, number) for number in range(count)]
    baseline = {
        "tokens": plan.purge_tokens,
        "before_p99_ms": median(one.before_p99 for one in rounds),
        "meanwhile_p99_ms": median(one.meanwhile_p99 for one in rounds),
        "overlapping_p99_ms": median(one.overlapping_p99 for one in rounds),
        "worst_ms": max(one.worst for one in rounds),
        **plan.shape(),
    }
    return [
        figure_of_rounds("purge_1m_ms", [one.purge for one in rounds], "ms", Goal("<=", 1000), baseline),
        figure_of_rounds(
            "purge_p99_ratio",
            [one.meanwhile_p99 / one.before_p99 for one in rounds],
            "ratio",
            Goal("<=", 1.2),
            baseline,
        ),
    ]


def _round(authority: Authority, population: Population, plan: Plan, number: int) -> Round:
    calls_each = calls_for(
        plan.seconds,
        plan.processes,
        lambda each: run_load(
            authority.target("Validate"), population.unary_callers(number), calls_each=each, streams=plan.streams
        ),
    )

    def window() -> list[Timed]:
        verdicts = authority.verdicts()
        target, callers = authority.target("Validate"), population.unary_callers(number)
        calls = run_timed(target, callers, calls_each=calls_each, streams=plan.streams)
        require_only_active(verdicts, authority.verdicts(), len(calls))
        return calls

    partition = _expired(authority, holder_of(population), plan.purge_tokens, number)
    before = window()
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(window)
        time.sleep(plan.seconds * _BEGUN_SHARE)
        purging = asyncio.run(_purge(authority))
        meanwhile = loading.result()
    if [one.name for one in purging.done.dropped] != [partition.name]:
        raise MeasurementError(f"not purged: {purging.done}")
    overlapping = [call for call in meanwhile if purging.overlaps(call)]
    return Round(
        purge=(purging.until_us - purging.from_us) / 1000,
        before_p99=_p99_ms(before),
        meanwhile_p99=_p99_ms(meanwhile),
        overlapping_p99=_p99_ms(overlapping or meanwhile),
        worst=max(call.took_us for call in meanwhile) / 1000,
    )


@dataclass(frozen=True, slots=True)
class Purging:
    """What was purged, and from when until when, in microseconds since 1970."""

    done: Purge
    from_us: int
    until_us: int

    def overlaps(self, call: Timed) -> bool:
        return call.sent_us < self.until_us and call.sent_us + call.took_us > self.from_us


async def _purge(authority: Authority) -> Purging:
    database = await Database.open(authority.postgres.watchword_dsn(), pool_size_max=1)
    try:
        from_us = time.time_ns() // 1000
        done = await purge(database, _RETENTION, now=datetime.now(UTC))
        return Purging(done, from_us, time.time_ns() // 1000)
    finally:
        await database.close()


def _expired(authority: Authority, holder: Holder, count: int, number: int) -> Partition:
    """A partition full of tokens that ended years ago."""
    postgres = authority.postgres
    database = postgres.watchword_database()
    begins = _FIRST + number * _LENGTH
    partition = Partition("tokens", begins, begins + _LENGTH)
    with postgres.connect(database) as connection:
        connection.execute(
            "select ensure_partition(%s, %s, %s, %s)",
            [partition.parent, partition.name, partition.lower_bound, partition.upper_bound],
        )
    fill(postgres, database, count, holder, partition.begins_at, partition.ends_at)
    settle(postgres, database)
    return partition


def _p99_ms(calls: Sequence[Timed]) -> float:
    return sorted(call.took_us for call in calls)[len(calls) * 99 // 100] / 1000
