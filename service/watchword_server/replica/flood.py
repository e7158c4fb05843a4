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


class FloodGate:
    """Renewals and the like by a bucket, acknowledgements by what was sent, nonces by the latest."""

    __slots__ = ("_acknowledgements", "_at", "_clock", "_nonces", "_room", "renew_every_seconds")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._room = float(BURST_MAX)
        self._at = clock.boottime()
        self._acknowledgements = ACKNOWLEDGEMENTS_SPARE
        self._nonces: deque[int] = deque(maxlen=NONCES_KEPT)
        self.renew_every_seconds = 1.0

    def sent(self) -> None:
        """A message to the verifier was taken, which it may acknowledge."""
        self._acknowledgements += 1

    def message(self) -> None:
        """Counts one that is no acknowledgement."""
        now = self._clock.boottime()
        self._room = min(BURST_MAX, self._room + (now - self._at) * PER_RENEWAL_MAX / self.renew_every_seconds)
        self._at = now
        if self._room < 1:
            raise refusal.flooding()
        self._room -= 1

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
