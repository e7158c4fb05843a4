"""How many messages a verifier may send on one stream."""

from __future__ import annotations

from collections import deque
from typing import Final

from watchword.lease import Clock
from watchword_server.replica import refusal

BURST_MAX: Final = 20
PER_RENEWAL_MAX: Final = 4
ACKNOWLEDGEMENTS_SPARE: Final = 100
NONCES_KEPT: Final = 256
REPORTS_PER_INTERVAL_MAX: Final = 4
REPORTS_BURST_MAX: Final = 2 * REPORTS_PER_INTERVAL_MAX
"""Those of two intervals, because the network may bring them together."""


class _Bucket:
    """Fills up by `per_second`, and holds `burst_max` at most, with which it begins."""

    __slots__ = ("_at", "_burst_max", "_clock", "_room", "per_second")

    def __init__(self, clock: Clock, burst_max: int, per_second: float) -> None:
        self._clock = clock
        self._burst_max = burst_max
        self._room = float(burst_max)
        self._at = clock.boottime()
        self.per_second = per_second

    def take(self) -> None:
        """Takes one out of it. Raises WatchRefusedError when it is empty."""
        now = self._clock.boottime()
        self._room = min(self._burst_max, self._room + (now - self._at) * self.per_second)
        self._at = now
        if self._room < 1:
            raise refusal.flooding()
        self._room -= 1


class FloodGate:
    """Renewals and the like by a bucket, reports of usage by another, acknowledgements by what was sent, nonces by the
    latest."""

    __slots__ = ("_acknowledgements", "_messages", "_nonces", "_reports", "renew_every_seconds")

    def __init__(self, clock: Clock, *, report_every_seconds: float = 0) -> None:
        self._messages = _Bucket(clock, BURST_MAX, 0.0)
        reports_per_second = REPORTS_PER_INTERVAL_MAX / report_every_seconds if report_every_seconds else 0.0
        self._reports = _Bucket(clock, REPORTS_BURST_MAX, reports_per_second)
        self._acknowledgements = ACKNOWLEDGEMENTS_SPARE
        self._nonces: deque[int] = deque(maxlen=NONCES_KEPT)
        self.renew_every_seconds = 0.0
        self.renews(every_seconds=1.0)

    def renews(self, *, every_seconds: float) -> None:
        """How often the verifier has reason to ask for a lease."""
        self.renew_every_seconds = every_seconds
        self._messages.per_second = PER_RENEWAL_MAX / every_seconds

    def sent(self) -> None:
        """A message to the verifier was taken, which it may acknowledge."""
        self._acknowledgements += 1

    def message(self) -> None:
        """Counts one that is neither an acknowledgement nor a report."""
        self._messages.take()

    def report(self) -> None:
        """Counts a report of usage."""
        self._reports.take()

    def acknowledgement(self) -> None:
        """Counts an acknowledgement: at most one for each message sent, and some to spare."""
        if self._acknowledgements < 1:
            raise refusal.flooding()
        self._acknowledgements -= 1

    def nonce(self, nonce: int) -> None:
        """Remembers a renewal's nonce."""
        if nonce in self._nonces:
            raise refusal.protocol("a nonce was used twice")
        self._nonces.append(nonce)
