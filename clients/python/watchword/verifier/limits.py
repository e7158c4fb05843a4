"""What a verifier's cache may hold, and what happened in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What a cache may hold. Raises ValueError for a limit that makes no sense."""

    entries_max: int = 100_000
    """Good tokens."""
    negative_entries_max: int = 20_000
    """Tokens known to be inactive."""
    bytes_max: int = 64 * 1024 * 1024
    """Good tokens, estimated."""
    age_seconds_max: float = 3600.0
    """However long an answer may be kept by what the authority says."""
    negative_seconds_max: float = 60.0
    changes_kept_max: int = 100_000
    """Changes remembered to judge answers that were read before them."""

    uses_max: int = 100_000
    """Tokens of which it is remembered how they were used, until the authority is told."""

    def __post_init__(self) -> None:
        counts = (self.entries_max, self.negative_entries_max, self.bytes_max, self.changes_kept_max, self.uses_max)
        if min(counts) < 1:
            raise ValueError("the limits of a cache must be at least 1")
        if not (self.age_seconds_max > 0 and 0 < self.negative_seconds_max <= 60):
            raise ValueError("ages must be positive, negative_seconds_max at most 60")


@dataclass(slots=True)
class CacheCounts:
    """What happened so far. For metrics: read without the lock."""

    hits: int = 0
    negative_hits: int = 0
    joins: int = 0
    evictions: int = 0
    flushes: int = 0
    changes: int = 0
