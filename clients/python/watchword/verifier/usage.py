"""What was admitted from memory, token by token, until the authority is told. No I/O; no decision rests on it.

A check of a token that was counted before pays for an addition; the first one after each report, for each requirement,
goes the longer way, where it is noted what was needed and where the call came from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from watchword.lease import Clock

if TYPE_CHECKING:
    from watchword.verifier.entries import Entry

_NO_SCOPES: Final[frozenset[str]] = frozenset()


class Use:
    """The use of one token since it was last told."""

    __slots__ = ("address", "count", "covered", "last_at", "refused_address", "refused_count", "scopes", "seen")

    def __init__(self) -> None:
        self.count = 0
        self.last_at = 0.0
        self.address = ""
        self.refused_count = 0
        self.refused_address = ""
        self.covered: dict[tuple[str, ...], int] = {}
        self.seen = 0
        """What its uses required, as bits of `covered`. Without the bit of a requirement nothing is counted on it."""
        self.scopes = _NO_SCOPES
        """What they required beside that."""

    def need(self, required_scopes: tuple[str, ...]) -> None:
        """A use required these."""
        if not self.scopes.issuperset(required_scopes):
            self.scopes = self.scopes.union(required_scopes)

    def needed(self, seen: int) -> frozenset[str]:
        """Every scope that the uses required."""
        # A copy: other threads add requirements meanwhile, under a lock that nobody holds here.
        return self.scopes.union(*(scopes for scopes, bit in self.covered.copy().items() if seen & bit))


UNUSED: Final = Use()
"""Of tokens that were not used yet. Never has a bit."""


@dataclass(frozen=True, slots=True)
class Used:
    """What there is to tell of one token."""

    token_id: str
    count: int
    last_at: float
    """Boottime."""
    address: str
    scopes: Collection[str]
    refused_count: int
    refused_address: str


class Uses:
    """The uses of at most `tokens_max` tokens. `lock` gives the cache's lock, under which hits are counted."""

    __slots__ = ("_clock", "_lock", "_of", "dropped_count", "is_counting", "tokens_max")

    def __init__(self, tokens_max: int, clock: Clock, lock: Callable[[], AbstractContextManager[Any]]) -> None:
        self.tokens_max: Final = tokens_max
        self._clock: Final = clock
        self._lock: Final = lock
        self._of: dict[str, Use] = {}
        self.is_counting = False
        """Whether anybody wants to be told."""
        self.dropped_count = 0
        """Uses that were not counted, because those of too many tokens wait to be told."""

    def __len__(self) -> int:
        return len(self._of)

    def count(self, entry: Entry, required_scopes: tuple[str, ...], now: float, address: str | None) -> bool:
        """Counts a hit; the lock is held. False: it is the first of its kind, which is counted together with the
        caller's address only.
        """
        use, bit = entry.use, entry.profile.covered.get(required_scopes, 0)
        if not use.seen & bit:
            if address is None:
                return False
            found = self._use(entry.identity.token_id)
            if found is None:
                return True
            use = entry.use = found
            if use.covered is not entry.profile.covered:
                use.scopes, use.seen, use.covered = use.needed(use.seen), 0, entry.profile.covered
            use.seen |= bit
            if not bit:
                # One requirement more than a profile has bits for.
                use.need(required_scopes)
            use.address = address or use.address
        use.count += 1
        use.last_at = now
        return True

    def count_bound(self, token_id: str, required_scopes: tuple[str, ...], address: str, *, is_admitted: bool) -> None:
        """Counts a call with a bound token, of which is known by now whether it matched."""
        with self._lock():
            use = self._use(token_id) if self.is_counting else None
            if use is None:
                return
            if is_admitted:
                use.count += 1
                use.last_at = self._clock.boottime()
                use.address = address
                use.need(required_scopes)
            else:
                use.refused_count += 1
                use.refused_address = address

    def take(self, tokens_max: int) -> Sequence[Used]:
        """What has waited longest to be told, of so many tokens. Their uses are counted anew."""
        with self._lock():
            taken = self._take(tokens_max)
        return [
            Used(
                token_id, use.count, use.last_at, use.address, use.needed(seen), use.refused_count, use.refused_address
            )
            for token_id, use, seen in taken
        ]

    def want(self, wanted: bool) -> None:
        """Whether anybody wants to be told. If not, what was counted is forgotten."""
        with self._lock():
            self.is_counting = wanted
            if not wanted:
                self._take(len(self._of))

    def _take(self, tokens_max: int) -> Sequence[tuple[str, Use, int]]:
        taken = [(token_id, use, use.seen) for token_id, use in islice(self._of.items(), tokens_max)]
        for token_id, use, _ in taken:
            use.seen = 0
            del self._of[token_id]
        return taken

    def _use(self, token_id: str) -> Use | None:
        use = self._of.get(token_id)
        if use is None:
            if len(self._of) >= self.tokens_max:
                self.dropped_count += 1
                return None
            use = self._of[token_id] = Use()
        return use
