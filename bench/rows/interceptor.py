"""interceptor_hit_us, interceptor_hit_share, interceptor_vs_remote: what a check costs in the service that makes it.

The difference of two calls that cost hundreds of microseconds is to be read to one. So all sides run in one process,
in slices shorter than the noise of a shared machine, and a round takes the median of many slices of each side. Beside
it stands what the same interceptors take when they are called without a network, where there is next to no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.authority import Authority, require_only_active
from bench.cost import calls_for
from bench.echo import PAYLOAD
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.load import Caller, LoadResult, run_load
from bench.population import Verifier
from bench.service import ProtectedService, Side, protected_service
from bench.stage import Stage

_SIDES: Final[tuple[Side, ...]] = ("bare", "passing", "cached")
_SLICE_SHARE: Final = 0.2
"""Of the seconds of a round of other rows."""
_WALKS_PER_SECOND: Final = 20_000
_REMOTE_PER_SECOND: Final = 400


def require_all_hits(before: Mapping[str, int], after: Mapping[str, int], expected: int) -> None:
    """Raises MeasurementError unless each of `expected` calls was answered from memory, and reached the handler."""
    counted = {name: after[name] - before[name] for name in ("hits", "misses", "joins", "calls")}
    if counted != {"hits": expected, "misses": 0, "joins": 0, "calls": expected}:
        raise MeasurementError(f"sent {expected} calls with known tokens, and the service counted {counted}")


def _cost_us(service: ProtectedService, side: Side, callers: Sequence[Caller], each: int, streams: int) -> float:
    before = service.status()
    began = service.cpu_ns()
    result = run_load(service.target(side), callers, calls_each=each, streams=streams)
    took = service.cpu_ns() - began
    after = service.status()
    if side == "cached":
        require_all_hits(before, after, result.calls)
    elif after["calls"] - before["calls"] != result.calls:
        raise MeasurementError(f"sent {result.calls} calls, and the handler was not reached by all of them")
    return took / 1000 / result.calls


@contextmanager
def knowing_service(authority: Authority, verifier: Verifier, tokens: Sequence[str]) -> Iterator[ProtectedService]:
    """A service under a live lease that has seen all `tokens`."""
    with protected_service(authority.port, verifier.secret) as service:
        for _ in range(100):
            service.walk("cached", tokens, len(tokens))
            before = service.status()
            service.walk("cached", tokens, len(tokens))
            if service.status()["hits"] - before["hits"] == len(tokens):
                break
        else:
            raise MeasurementError("the service does not cache")
        yield service


def measure(stage: Stage) -> list[Figure]:
    """CPU of the service per call, under load: cached check - interceptor that does nothing."""
    plan, loaded = stage.plan, stage.loaded("native")
    verifier = loaded.population.verifiers[0]
    tokens = verifier.tokens[: plan.processes]
    callers = [Caller(PAYLOAD, token) for token in tokens]
    with knowing_service(loaded.authority, verifier, tokens) as service:

        def probe(side: Side) -> Callable[[int], LoadResult]:
            return lambda each: run_load(service.target(side), callers, calls_each=each, streams=plan.streams)

        calls = {side: calls_for(plan.seconds * _SLICE_SHARE, len(callers), probe(side)) for side in _SIDES}

        def one_round(number: int) -> dict[str, float]:
            costs: dict[str, list[float]] = {side: [] for side in _SIDES}
            for at in range(plan.slices):
                for side in _SIDES if (number + at) % 2 else reversed(_SIDES):
                    costs[side].append(_cost_us(service, side, callers, calls[side], plan.streams))
            walks = max(100, int(plan.seconds * _WALKS_PER_SECOND))
            passing, cached = interleaved(
                1, lambda _: service.walk("passing", tokens, walks), lambda _: service.walk("cached", tokens, walks)
            )[0]
            medians = {f"{side}_us": median(values) for side, values in costs.items()}
            return medians | {"added_without_network_us": cached - passing}

        rounds = [one_round(number) for number in range(plan.rounds)]
    baseline = {name: median(one[name] for one in rounds) for name in rounds[0]}
    baseline |= {"interceptor_us": median(one["cached_us"] - one["bare_us"] for one in rounds)}
    baseline |= {"slices": plan.slices, **plan.shape()}
    added = [one["cached_us"] - one["passing_us"] for one in rounds]
    shares = [(one["cached_us"] - one["passing_us"]) / one["cached_us"] for one in rounds]
    return [
        figure_of_rounds("interceptor_hit_us", added, "us/call", Goal("<=", 8), baseline),
        figure_of_rounds("interceptor_hit_share", shares, "of a call", Goal("<=", 0.03), baseline),
    ]


@dataclass(frozen=True, slots=True)
class _Remote:
    """Where the CPU of a remote check goes, in microseconds."""

    service_us: float
    authority_us: float
    postgres_us: float

    @property
    def total_us(self) -> float:
        return self.service_us + self.authority_us + self.postgres_us


def measure_remote(stage: Stage) -> list[Figure]:
    """CPU of a remote check, one at a time, service and authority and PostgreSQL / CPU of a cached one."""
    plan, loaded = stage.plan, stage.loaded("native")
    authority, verifier = loaded.authority, loaded.population.verifiers[0]
    tokens = verifier.tokens[: plan.processes]
    walks = max(100, int(plan.seconds * _WALKS_PER_SECOND))
    asks = max(20, int(plan.seconds * _REMOTE_PER_SECOND))
    with knowing_service(authority, verifier, tokens) as service:

        def remote(_: int) -> _Remote:
            verdicts, postgres = authority.verdicts(), authority.postgres
            authority_ns, postgres_ns = authority.cpu_ns(), postgres.cpu_ns()
            service_us = service.walk("remote", tokens, asks)
            authority_ns, postgres_ns = authority.cpu_ns() - authority_ns, postgres.cpu_ns() - postgres_ns
            require_only_active(verdicts, authority.verdicts(), asks)
            return _Remote(service_us, authority_ns / 1000 / asks, postgres_ns / 1000 / asks)

        def cached(_: int) -> float:
            before = service.status()
            took = service.walk("cached", tokens, walks)
            require_all_hits(before, service.status(), walks)
            return took

        remote(0)
        pairs = interleaved(plan.rounds, remote, cached)
    baseline: dict[str, Any] = {
        "remote_service_us": median(asked.service_us for asked, _ in pairs),
        "remote_authority_us": median(asked.authority_us for asked, _ in pairs),
        "remote_postgres_us": median(asked.postgres_us for asked, _ in pairs),
        "cached_us": median(known for _, known in pairs),
        "callers": 1,
    }
    ratios = [asked.total_us / known for asked, known in pairs]
    return [figure_of_rounds("interceptor_vs_remote", ratios, "ratio", Goal(">=", 40), baseline)]
