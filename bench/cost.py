"""CPU per call of one side under load, with the server's own count held against what was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.authority import Authority, require_only_active
from bench.echo import EchoServer
from bench.figures import MeasurementError
from bench.load import Caller, LoadResult, run_load

_PROBE_CALLS_EACH: Final = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost on the server's side: the load generator's own CPU is not in it."""

    server_us: float
    postgres_us: float
    rate: float

    @property
    def total_us(self) -> float:
        return self.server_us + self.postgres_us


def calls_for(seconds: float, processes: int, run: Callable[[int], LoadResult]) -> int:
    """How many calls each process has to make for a round of about `seconds`. Warms the server up on the way."""
    run(_PROBE_CALLS_EACH)
    rate = run(_PROBE_CALLS_EACH * 4).rate
    return max(_PROBE_CALLS_EACH, int(rate * seconds / processes))


def echo_cost(echo: EchoServer, callers: Sequence[Caller], *, calls_each: int, streams: int) -> Cost:
    """Raises MeasurementError unless the echo served exactly what was sent."""
    served_before, cpu_before = echo.calls(), echo.cpu_ns()
    result = run_load(echo.target, callers, calls_each=calls_each, streams=streams)
    cpu_ns = echo.cpu_ns() - cpu_before
    if echo.calls() - served_before != result.calls:
        raise MeasurementError("the echo did not serve what was sent")
    return Cost(cpu_ns / 1000 / result.calls, 0.0, result.rate)


def check_cost(
    authority: Authority,
    method: str,
    callers: Sequence[Caller],
    *,
    calls_each: int,
    streams: int,
    tokens_per_call: int = 1,
) -> Cost:
    """The cost of one call of Validate or BatchValidate.

    Raises MeasurementError unless the server found every single token active.
    """
    postgres, verdicts_before = authority.postgres, authority.verdicts()
    server_before, postgres_before = authority.cpu_ns(), postgres.cpu_ns()
    result = run_load(authority.target(method), callers, calls_each=calls_each, streams=streams)
    server_ns, postgres_ns = authority.cpu_ns() - server_before, postgres.cpu_ns() - postgres_before
    require_only_active(verdicts_before, authority.verdicts(), result.calls * tokens_per_call)
    return Cost(server_ns / 1000 / result.calls, postgres_ns / 1000 / result.calls, result.rate)
