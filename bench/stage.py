"""What the rows share: the plan of a run, and servers that are started once and loaded by several rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.authority import Authority, data_folder, serving
from bench.echo import EchoServer, Transport, echo_server
from bench.figures import MeasurementError
from bench.fleet import Fleet, fleet
from bench.population import Population, populate


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure. `processes` x `streams` calls are in flight; 16 x 4 are the 64 that the figures name."""

    rounds: int = 7
    seconds: float = 1.0
    processes: int = 16
    streams: int = 4
    tokens_each: int = 256
    batch_size: int = 256
    batch_processes: int = 4
    slices: int = 15
    """Of each side in one round, where what is looked for is smaller than the noise."""
    verifiers: int = 100
    """That watch while something is revoked, half of them at each of two replicas."""
    revocations: int = 300
    """Of a round, one after another."""
    frozen_lease_seconds: float = 5.0
    bulk_tokens: int = 100_000
    entries: int = 100_000
    """Of a cache whose memory is measured."""
    entries_many: int = 1_000_000
    entries_few: int = 1_000
    scan_bytes: int = 256 << 20
    usage_intervals: int = 10
    idle_watchers: int = 500
    idle_lease_seconds: int = 60
    idle_seconds: float = 60.0
    tokens_many: int = 10_000_000
    tokens_few: int = 10_000
    presentable: int = 90_000
    """Of very many tokens, so many are real ones, which the load presents at random."""
    purge_tokens: int = 1_000_000

    @property
    def in_flight(self) -> int:
        return self.processes * self.streams

    def shape(self) -> dict[str, float]:
        """The load, as it stands beside every figure."""
        return {"connections": self.processes, "streams": self.streams}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A server with its tokens issued."""

    authority: Authority
    population: Population


@dataclass(slots=True)
class Stage:
    """Starts a server when a row first asks for it; the stack ends them all."""

    plan: Plan
    stack: ExitStack
    _loaded: dict[Transport, Loaded] = field(default_factory=dict)
    _echoes: dict[Transport, EchoServer] = field(default_factory=dict)
    _broken: dict[Transport, str] = field(default_factory=dict)
    _fleet: Fleet | None = None

    def echo(self, transport: Transport) -> EchoServer:
        if transport not in self._echoes:
            self._echoes[transport] = self.stack.enter_context(echo_server(transport))
        return self._echoes[transport]

    def loaded(self, transport: Transport) -> Loaded:
        # A server that did not start once will not start for the next row either, and each attempt takes a minute.
        if transport in self._broken:
            raise MeasurementError(self._broken[transport])
        if transport not in self._loaded:
            try:
                data_dir = self.stack.enter_context(data_folder())
                authority = self.stack.enter_context(serving(data_dir, transport))
            except MeasurementError as error:
                self._broken[transport] = str(error)
                raise
            self._loaded[transport] = Loaded(authority, self.populate(authority))
        return self._loaded[transport]

    def fleet(self) -> Fleet:
        """Two replicas."""
        if self._fleet is None:
            self._fleet = self.stack.enter_context(fleet())
        return self._fleet

    def populate(self, authority: Authority) -> Population:
        return populate(authority, verifiers=self.plan.processes, tokens_each=self.plan.tokens_each)
