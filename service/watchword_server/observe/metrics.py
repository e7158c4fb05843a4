"""What the server counts. Cheap enough to be on the path of every call: additions to plain lists, no locks, no labels
looked up; Prometheus's form is made when someone scrapes.

All counting happens on the event loop's thread, the only writer; a scrape on another thread may see a call's count
before its duration, and never a torn number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CALL_SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_SIZE_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
REVOCATION_SECONDS_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)
LABELS_MAX: Final = 100
"""How many distinct values one label may have: a bug that counts by something a caller chose must not fill memory."""
_CODE_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


class Distribution:
    """Observations in buckets."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus has them: each counts everything up to its bound."""
        counted, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), list(self.counts), strict=True):
            counted += count
            buckets.append((bound, float(counted)))
        return buckets


class MethodMeter:
    """One method's calls. Fetch it once with `Metrics.method`, at registration."""

    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes = [0] * len(_CODE_NAMES)
        self.seconds = Distribution(CALL_SECONDS_BUCKETS)

    def finished(self, code: int, seconds: float) -> None:
        """Counts a call that ended with the gRPC status number `code` after `seconds`."""
        self.codes[code] += 1
        self.seconds.observe(seconds)


class Tally:
    """Counts by name, such as verdicts by reason. Names are ours, never a caller's. Those that are given are there from
    the start, so that the first of them is an increase already."""

    __slots__ = ("_counts",)

    def __init__(self, *names: str) -> None:
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str) -> None:
        counts = self._counts
        if name not in counts and len(counts) >= LABELS_MAX:
            name = "other"
        counts[name] = counts.get(name, 0) + 1

    def snapshot(self) -> dict[str, int]:
        return self._counts.copy()


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """This server among the replicas. `known` and `applied` are positions, `lag` is how many the slowest verifier is
    behind."""

    lease_seconds_left: float
    known: int
    applied: int
    watchers: int
    leases: int
    lag: int


class Metrics:
    """Everything the server counts, in a registry of its own.

    `pool_state` answers (size, idle, size_max) and is asked at each scrape.
    """

    def __init__(self, *, version: str = "") -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.verdicts = Tally()
        """Answers about tokens, by reason: active, expired, revoked, unknown..."""
        self.lookup_batch_sizes = Distribution(BATCH_SIZE_BUCKETS)
        self.issue_batch_sizes = Distribution(BATCH_SIZE_BUCKETS)
        self.statements = Tally()
        """SQL statements sent, by query."""
        self.database_up = False
        self.administrator_seconds_left: float | None = None
        """Until the last live administrator ends; None while unknown, 0 when there is none."""
        self.certificate_seconds_left: float | None = None
        """Until the first certificate of the TLS chain ends; None without TLS."""
        self.housekept_at: float | None = None
        """When partitions were last made ahead, in unix seconds; None before the first time."""
        self.partitions_dropped = Tally()
        """Partitions past their retention that this server dropped, by table."""
        self.purges_put_off = 0
        """Times that one could not be dropped."""
        self.purge_overdue_seconds: float | None = None
        """For how long the oldest partition has been past its retention, 0 if none is; None before the first look."""
        self.pool_state: Callable[[], tuple[int, int, int]] | None = None
        self.replica_state: ReplicaState | None = None
        """As of a second ago; replaced whole, because a scrape reads it on another thread."""
        self.revocation_seconds = {
            True: Distribution(REVOCATION_SECONDS_BUCKETS),
            False: Distribution(REVOCATION_SECONDS_BUCKETS),
        }
        """How long Revoke waited, by whether it was complete then."""
        self.replicas_fenced = 0
        """Other servers that this one found dead and deleted."""
        self.watches_refused = Tally()
        self.calls_shed = Tally("limit", "late")
        """Calls refused at once, by what there was too much of."""
        self.rate_limited = Tally("issues", "failed_validations")
        """Calls refused for their callers' rates, by limit."""
        self.audit_events_dropped = 0
        """Events of denied and of reading calls that were lost."""
        self.usage_reports = Tally("received", "refused")
        """Verifiers' reports of what they admitted from memory."""
        self.usage_state: Callable[[], tuple[int, int, int]] | None = None
        """Answers how many uses of tokens came in, how many of them were dropped, and how many rows wait."""
        self.usage_rows = 0
        """Rows written about tokens' use."""
        self.rotations_ended = 0
        """Rotated tokens that this server found silent and ended."""
        self.alarms = Tally("rotated_token_presented", "bound_token_refused", "new_network")
        """What somebody should look at, by kind."""
        self._version = version
        self._methods: dict[str, MethodMeter] = {}
        self.registry.register(_Families(self))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def method(self, path: str) -> MethodMeter:
        """The meter of `/package.Service/Method`. For methods that exist only, never for what a caller sent."""
        return self._methods.setdefault(path, MethodMeter())

    def count_dropped_events(self, count: int) -> None:
        """So many audit events were lost."""
        self.audit_events_dropped += count

    def families(self) -> Iterator[Metric]:
        """Everything in Prometheus's form, as of now."""
        yield from self._calls()
        yield _counter("watchword_verdicts", "Answers about tokens, by reason.", "reason", self.verdicts)
        yield _counter("watchword_statements", "SQL statements sent, by query.", "query", self.statements)
        sizes = HistogramMetricFamily(
            "watchword_batch_size", "How many calls shared one statement or commit.", labels=["kind"]
        )
        for kind, distribution in (("lookup", self.lookup_batch_sizes), ("issue", self.issue_batch_sizes)):
            sizes.add_metric([kind], distribution.cumulative(), distribution.total)
        yield sizes
        yield from self._database()
        yield from self._replica()
        yield from self._usage()
        yield GaugeMetricFamily(
            "watchword_administrator_remaining_seconds",
            "Until the last live administrator's token ends; nobody can issue one afterwards without a bootstrap.",
            value=float("nan") if self.administrator_seconds_left is None else self.administrator_seconds_left,
        )
        if self.certificate_seconds_left is not None:
            yield GaugeMetricFamily(
                "watchword_certificate_remaining_seconds",
                "Until the TLS certificate on disk ends, which the next handshake uses.",
                value=self.certificate_seconds_left,
            )
        if self.housekept_at is not None:
            yield GaugeMetricFamily(
                "watchword_housekeeping_success_timestamp_seconds",
                "When partitions were last made ahead and old rows removed.",
                value=self.housekept_at,
            )
        yield from self._purge()
        build = GaugeMetricFamily("watchword_build_info", "Always 1; the label says what runs.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build

    def _purge(self) -> Iterator[Metric]:
        yield _counter(
            "watchword_partitions_dropped", "Partitions past their retention.", "table", self.partitions_dropped
        )
        yield CounterMetricFamily(
            "watchword_purges_put_off", "Times that a partition could not be dropped.", value=self.purges_put_off
        )
        if self.purge_overdue_seconds is not None:
            yield GaugeMetricFamily(
                "watchword_purge_overdue_seconds",
                "How long the oldest partition has been past its retention.",
                value=self.purge_overdue_seconds,
            )

    def _calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("watchword_calls", "Calls ended, by method and status.", labels=["method", "code"])
        seconds = HistogramMetricFamily(
            "watchword_call_seconds", "From a call's arrival to its answer.", labels=["method"]
        )
        for path, meter in self._methods.copy().items():
            for number, count in enumerate(meter.codes):
                # OK is there from the start, so that a rate has something to start from.
                if count or number == 0:
                    calls.add_metric([path, _CODE_NAMES[number]], count)
            seconds.add_metric([path], meter.seconds.cumulative(), meter.seconds.total)
        yield calls
        yield seconds
        yield _counter("watchword_calls_shed", "Calls refused for want of room.", "cause", self.calls_shed)
        yield _counter("watchword_rate_limited", "Calls beyond their callers' rates.", "limit", self.rate_limited)
        yield CounterMetricFamily(
            "watchword_audit_events_dropped",
            "Events of denied and of reading calls that were lost.",
            value=self.audit_events_dropped,
        )

    def _usage(self) -> Iterator[Metric]:
        yield _counter("watchword_alarms", "Tokens that turned up where they should not.", "alarm", self.alarms)
        yield _counter(
            "watchword_usage_reports", "Verifiers' reports of tokens' use, by result.", "result", self.usage_reports
        )
        yield CounterMetricFamily("watchword_usage_rows", "Rows written about tokens' use.", value=self.usage_rows)
        yield CounterMetricFamily(
            "watchword_rotations_ended", "Rotated tokens that were silent and ended early.", value=self.rotations_ended
        )
        if self.usage_state is None:
            return
        counted, dropped, waiting = self.usage_state()
        yield CounterMetricFamily("watchword_uses", "Uses of tokens that were counted.", value=counted)
        yield CounterMetricFamily(
            "watchword_uses_dropped", "Uses that were never stored, for want of room.", value=dropped
        )
        yield GaugeMetricFamily("watchword_usage_waiting", "Rows about tokens' use not written yet.", value=waiting)

    def _replica(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            "watchword_revocation_wait_seconds",
            "From a revocation's commit to its answer, by how far it had got.",
            labels=["propagation"],
        )
        for complete, label in ((True, "complete"), (False, "pending")):
            distribution = self.revocation_seconds[complete]
            seconds.add_metric([label], distribution.cumulative(), distribution.total)
        yield seconds
        yield _counter("watchword_watches_refused", "Watches ended by the server.", "reason", self.watches_refused)
        yield CounterMetricFamily(
            "watchword_replicas_fenced", "Dead servers that this one deleted.", value=self.replicas_fenced
        )
        state = self.replica_state
        if state is None:
            return
        position = GaugeMetricFamily("watchword_position", "Where this server stands in the feed.", labels=["kind"])
        position.add_metric(["known"], state.known)
        position.add_metric(["applied"], state.applied)
        yield position
        for name, description, value in (
            ("watchword_replica_lease_remaining_seconds", "Left of this server's own lease.", state.lease_seconds_left),
            ("watchword_watchers", "Verifiers attached to this server.", state.watchers),
            ("watchword_verifier_leases", "Leases of verifiers that have not run out.", state.leases),
            ("watchword_watcher_lag", "Positions that the slowest verifier is behind.", state.lag),
        ):
            yield GaugeMetricFamily(name, description, value=value)

    def _database(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "watchword_database_up", "1 if the last probe of the database succeeded.", value=float(self.database_up)
        )
        if self.pool_state is None:
            return
        size, idle, size_max = self.pool_state()
        pool = GaugeMetricFamily("watchword_pool_connections", "Connections to the database.", labels=["state"])
        pool.add_metric(["idle"], idle)
        pool.add_metric(["busy"], size - idle)
        yield pool
        yield GaugeMetricFamily("watchword_pool_connections_max", "As many as the pool may open.", value=size_max)


class _Families(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


def _counter(name: str, description: str, label: str, tally: Tally) -> CounterMetricFamily:
    family = CounterMetricFamily(name, description, labels=[label])
    for value, count in sorted(tally.snapshot().items()):
        family.add_metric([value], count)
    return family
