"""Caches from which one mechanism is taken away: a checker that does not see this sees nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from watchword.lease import Clock, Instant, Lease
from watchword.verifier.cache import Cache


class _EndlessLease(Lease):
    """Once granted it is never over."""

    __slots__ = ("_granted",)

    def __init__(self) -> None:
        super().__init__()
        self._granted = False

    def renew(self, sent: Instant, lease_seconds: float) -> None:
        super().renew(sent, lease_seconds)
        self._granted = True

    def live(self, clock: Clock) -> bool:
        return self._granted


class LeaseIgnored(Cache):
    """Answers from memory for ever."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.lease = _EndlessLease()


class AcknowledgesUnapplied(Cache):
    """Says that it has applied what it has not."""

    def _forget(self, number: int, token_ids: object) -> None:
        return


CACHES: Final[Mapping[str, type[Cache]]] = {
    "lease_ignored": LeaseIgnored,
    "acknowledges_unapplied": AcknowledgesUnapplied,
}


def spoil(verifier: Any, clock: Clock, defect: str) -> None:
    """Gives a verifier, before its first check, a cache with this defect; none if it is empty."""
    if defect:
        verifier._cache = CACHES[defect](clock)
