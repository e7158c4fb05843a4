"""renewals_core_percent: what verifiers cost the server they watch while nothing is revoked."""

from __future__ import annotations

import time

from bench.authority import Authority
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds
from bench.stage import Stage
from bench.streams import streams


def _cores(authority: Authority, seconds: float) -> tuple[float, float]:
    """How much of a core the server and its PostgreSQL take, over so long."""
    server_ns, postgres_ns, began = authority.cpu_ns(), authority.postgres.cpu_ns(), time.perf_counter_ns()
    time.sleep(seconds)
    took = time.perf_counter_ns() - began
    return (authority.cpu_ns() - server_ns) / took, (authority.postgres.cpu_ns() - postgres_ns) / took


def measure(stage: Stage) -> list[Figure]:
    """CPU of one idle server with many verifiers attached - with none, per second, as a share of one core.

    One round, of a whole number of renewals of each verifier; they are spread evenly over the time between two.
    """
    plan, loaded = stage.plan, stage.loaded("native")
    authority = loaded.authority
    secrets = [verifier.secret for verifier in loaded.population.verifiers]
    alone = _cores(authority, plan.idle_seconds)
    idle = streams(authority.port, secrets, count=plan.idle_watchers, lease_seconds=plan.idle_lease_seconds)
    with idle as (running, every_seconds):
        # Whatever attaching left to be done is over.
        time.sleep(plan.idle_seconds / 10)
        before, began = running.ask("grants"), time.monotonic()
        attached = _cores(authority, plan.idle_seconds)
        renewals = running.ask("grants") - before
        expected = plan.idle_watchers * (time.monotonic() - began) / every_seconds
        if not 0.9 * expected - 1 <= renewals <= 1.1 * expected + 1:
            raise MeasurementError(f"{renewals} leases were granted, and not {expected:.0f}")
    baseline = {
        "server_alone_percent": alone[0] * 100,
        "server_attached_percent": attached[0] * 100,
        "postgres_alone_percent": alone[1] * 100,
        "postgres_attached_percent": attached[1] * 100,
        "verifiers": plan.idle_watchers,
        "lease_seconds": plan.idle_lease_seconds,
        "renewals_per_second": plan.idle_watchers / every_seconds,
        "seconds": plan.idle_seconds,
    }
    added = (attached[0] - alone[0]) * 100
    return [figure_of_rounds("renewals_core_percent", [added], "% of a core", Goal("<=", 5), baseline)]
