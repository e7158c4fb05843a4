"""How a caching verifier is doing: for health pages, metrics, and whoever is woken at three in the morning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple


class Measurement(NamedTuple):
    """One number for a metrics system."""

    name: str
    """Without a prefix of a library or a unit of Prometheus' own: `cache_hits`, `lease_remaining_seconds`."""
    kind: Literal["counter", "gauge"]
    value: float
    description: str


@dataclass(frozen=True, slots=True)
class VerifierStatus:
    """One look at a caching verifier. Counts only grow, for the life of the verifier."""

    caching: bool
    """Whether checks are answered from memory now: a lease is live."""
    reason: str | None
    """Why not, in a sentence; None while caching."""
    attached: bool
    """Whether a watch is open on which changes arrive."""
    last_error: str | None
    """Why the last watch could not be opened or ended, as a name: `UNAVAILABLE`, `UNIMPLEMENTED`, `SILENT`."""
    lease_remaining_seconds: float = 0.0
    epoch: bytes | None = None
    """Which history of the authority the position belongs to."""
    applied: int = 0
    """Every revocation up to this position is in force here."""
    lag: int = 0
    """How many positions beyond `applied` the authority is known to be."""
    entries: int = 0
    negative_entries: int = 0
    size_bytes: int = 0
    """What the entries of good tokens take, about."""
    hits: int = 0
    """Checks answered from memory, of good and of inactive tokens."""
    misses: int = 0
    """Checks that went to the authority."""
    joins: int = 0
    """Checks that waited for the answer to another's lookup of the same token."""
    limited: int = 0
    """Checks refused because of the limits on misses."""
    evictions: int = 0
    flushes: int = 0
    changes: int = 0
    """Revocations heard of."""
    uses_dropped: int = 0
    """Checks answered from memory that the authority will not hear of: too many tokens waited to be reported."""

    def measurements(self) -> Iterator[Measurement]:
        """The numbers, to hand on to a metrics system when it asks; checks pay nothing for them. For Prometheus:

        class VerifierCollector(prometheus_client.registry.Collector):
            def __init__(self, verifier):
                self.verifier = verifier

            def collect(self):
                for name, kind, value, description in self.verifier.status().measurements():
                    family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                    yield family("watchword_verifier_" + name, description, value=value)

        prometheus_client.REGISTRY.register(VerifierCollector(verifier))
        """
        for name, kind, description in _MEASURED:
            yield Measurement(name, kind, float(getattr(self, name)), description)


_MEASURED: Final[tuple[tuple[str, Literal["counter", "gauge"], str], ...]] = (
    ("caching", "gauge", "1 while checks are answered from memory: a lease is live."),
    ("attached", "gauge", "1 while a watch is open."),
    ("lease_remaining_seconds", "gauge", "For how long cached answers may still be used."),
    ("lag", "gauge", "Positions the authority is known to be ahead."),
    ("entries", "gauge", "Good tokens remembered."),
    ("negative_entries", "gauge", "Inactive tokens remembered."),
    ("size_bytes", "gauge", "What the entries take, about."),
    ("hits", "counter", "Checks answered from memory."),
    ("misses", "counter", "Checks that went to the authority."),
    ("joins", "counter", "Checks that joined another's lookup."),
    ("limited", "counter", "Checks refused because of the limits on misses."),
    ("evictions", "counter", "Entries dropped because the cache was full."),
    ("flushes", "counter", "Times that everything was forgotten."),
    ("changes", "counter", "Revocations heard of."),
    ("uses_dropped", "counter", "Checks answered from memory that were not counted for want of room."),
)
