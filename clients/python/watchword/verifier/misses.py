"""How many checks may go on to the authority: junk by the million costs it no more than this."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import unquote

from watchword.verifier.contract import VerifierUnavailableError


@dataclass(frozen=True, slots=True)
class MissLimits:
    """Bounds on the checks that a cache cannot answer. Each allows a burst of one second's worth.

    A service that starts cold meets each of its callers' tokens once: 2,000 a second fills a cache of 100,000 in under
    a minute, and is a fraction of what one replica answers. Callers behind one proxy share a peer, unless the
    interceptor knows it as one of its `trusted_proxies`: raise `per_peer_per_second_max` there.
    """

    per_second_max: float = 2_000.0
    per_peer_per_second_max: float = 500.0
    peers_max: int = 10_000
    """How many peers are remembered; the one not seen for longest is forgotten first, and begins afresh."""

    def __post_init__(self) -> None:
        if not (self.per_second_max >= 1 and self.per_peer_per_second_max >= 1 and self.peers_max >= 1):
            raise ValueError("every limit of misses must be at least 1")


class _Bucket:
    __slots__ = ("_filled_at", "_level", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = self._level = rate
        self._filled_at = now

    def has_one(self, now: float) -> bool:
        self._level = min(self._rate, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._level >= 1

    def take(self) -> None:
        self._level -= 1


class Misses:
    """Lets misses through while the limits hold. Thread-safe. `clock` gives seconds that only move forward."""

    def __init__(self, limits: MissLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits: Final = limits
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._all: Final = _Bucket(limits.per_second_max, clock())
        self._peers: OrderedDict[str, _Bucket] = OrderedDict()
        self.limited_count = 0
        """How many were refused since the beginning."""

    def take(self, peer: str | None = None) -> None:
        """Counts one miss of `peer` (what gRPC's `context.peer` gives). Raises VerifierUnavailableError
        (`MISSES_LIMITED`).
        """
        host = None if peer is None else _host(peer)
        with self._lock:
            now = self._clock()
            # A peer beyond its own limit takes nothing from the others.
            own = None if host is None else self._bucket(host, now)
            if (own is None or own.has_one(now)) and self._all.has_one(now):
                self._all.take()
                if own is not None:
                    own.take()
                return
            self.limited_count += 1
        raise VerifierUnavailableError("MISSES_LIMITED")

    def _bucket(self, host: str, now: float) -> _Bucket:
        found = self._peers.get(host)
        if found is None:
            while len(self._peers) >= self._limits.peers_max:
                self._peers.popitem(last=False)
            found = self._peers[host] = _Bucket(self._limits.per_peer_per_second_max, now)
        else:
            self._peers.move_to_end(host)
        return found


def _host(peer: str) -> str:
    """`ipv4:10.0.0.7:51234` without its port: a caller has as many ports as it likes, and of IPv6 a whole /64 of
    addresses, which counts as one host. Sockets are one peer.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return scheme
    host = unquote(rest.rpartition(":")[0]).strip("[]")
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    return host if address.ipv4_mapped is not None else address.packed[:8].hex()
