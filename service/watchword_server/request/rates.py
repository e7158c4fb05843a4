"""How often one caller may do what costs the database: a token bucket for each subject."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from watchword_server.answer.errors import RateLimitedError
from watchword_server.rules.tokens import TokenRecord

BURST_SECONDS: Final = 2.0
CALLERS_MAX: Final = 10_000


class _Bucket:
    __slots__ = ("filled_at", "level")

    def __init__(self, level: float, filled_at: float) -> None:
        self.level = level
        self.filled_at = filled_at


class Rates:
    """So many a second for each caller, twice as many at once; 0 is no limit.

    A caller spends what it turned out to cost, and goes into debt with the last of it, at most by one burst: a batch is
    answered whole or refused whole. `limited` holds the tokens whose callers have nothing left, as they were proved: so
    one is refused before anybody asks the database. At most `callers_max` of each, of which the one that spent longest
    ago is forgotten first; it is a burst's time away from a full bucket at most.
    """

    def __init__(
        self,
        per_second: float,
        *,
        callers_max: int = CALLERS_MAX,
        clock: Callable[[], float] = time.monotonic,
        count_refusal: Callable[[], None] = lambda: None,
    ) -> None:
        self._per_second = per_second
        self._burst = per_second * BURST_SECONDS
        self._callers_max = callers_max
        self._clock = clock
        self._count_refusal = count_refusal
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self.limited: OrderedDict[UUID, TokenRecord] = OrderedDict()

    def spend(self, caller: TokenRecord, count: int = 1) -> None:
        """Takes `count` from an authenticated caller. Raises RateLimitedError instead if it has none left."""
        if not self._per_second:
            return
        bucket = self._bucket(caller.subject)
        affordable = bucket.level >= 1
        if affordable:
            bucket.level = max(-self._burst, bucket.level - count)
            self._buckets[caller.subject] = bucket
            self._buckets.move_to_end(caller.subject)
            _bound(self._buckets, self._callers_max)
        if bucket.level < 1:
            self.limited[caller.token_id] = caller
            _bound(self.limited, self._callers_max)
        if not affordable:
            raise self._refusal(bucket)

    def check(self, caller: TokenRecord) -> None:
        """Raises RateLimitedError if one of `limited` has nothing left yet; takes it off otherwise."""
        bucket = self._bucket(caller.subject)
        if bucket.level < 1:
            raise self._refusal(bucket)
        self.limited.pop(caller.token_id, None)

    def _bucket(self, subject: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(subject)
        if bucket is None:
            return _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.filled_at) * self._per_second)
        bucket.filled_at = now
        return bucket

    def _refusal(self, bucket: _Bucket) -> RateLimitedError:
        self._count_refusal()
        return RateLimitedError((1 - bucket.level) / self._per_second)


def _bound(table: OrderedDict[UUID, TokenRecord] | OrderedDict[str, _Bucket], entries_max: int) -> None:
    while len(table) > entries_max:
        table.popitem(last=False)
