"""What the two caching verifiers have in common: everything but waiting."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from watchword.lease import LEASE_SECONDS_DEFAULT, Clock, ClockMissingError, SystemClock
from watchword.token import PREFIX_DEFAULT, MalformedTokenError, check_prefix, parse_token
from watchword.verifier.attachment import Attachment
from watchword.verifier.cache import Cache
from watchword.verifier.limits import CacheLimits
from watchword.verifier.misses import Misses, MissLimits
from watchword.verifier.session import WatchSession
from watchword.verifier.status import VerifierStatus
from watchword.verifier.verdict import Active, Answer, Bound, Verdict
from watchword.verifier.wire import Question

NAME_LENGTH_MAX: Final = 255
LIBRARY: Final = "watchword-python"
_LEASE_SECONDS_MAX: Final = 86_400.0
EYE_SECONDS: Final = 1.0
"""How often open streams are looked at."""
RECHECKS_MAX: Final = 500
"""How many of them are judged again at each look. The others wait: the next message of each is judged in any case, and
calls that come in go before streams that say nothing.
"""


class WatchedStream:
    """An open stream: see OpenStream. Holds its token, as its call does, to have it judged again."""

    __slots__ = ("_cache", "_gate", "_shut", "is_doubted", "is_due", "required_scopes", "token")

    def __init__(
        self,
        cache: Cache,
        token: str,
        required_scopes: tuple[str, ...],
        shut: Callable[[Verdict], None],
        doubt: Callable[[WatchedStream], None],
        recheck: Callable[[WatchedStream], None],
    ) -> None:
        self.token: Final = token
        self.required_scopes: Final = required_scopes
        self.is_due = False
        """Whether it waits to be judged again."""
        self.is_doubted = False
        """Whether it waits before those that are only due."""
        self._cache: Final = cache
        self._shut: Callable[[Verdict], None] | None = shut
        self._gate: Final = cache.register(token, lambda: doubt(self), lambda: recheck(self))

    def __repr__(self) -> str:
        return "WatchedStream()"

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self._shut is not None

    @property
    def question(self) -> Question:
        """To judge it again, of which nobody's call is the occasion."""
        return Question(self.token, self.required_scopes, is_recheck=True)

    def judged(self, verdict: Verdict) -> None:
        """What its token is now. Where the stream comes from has not changed since it was opened."""
        if isinstance(verdict, Bound):
            verdict = verdict.verdict
        if not isinstance(verdict, Active):
            self.end(verdict)

    def end(self, verdict: Verdict) -> None:
        """Shuts its gate, once."""
        shut, self._shut = self._shut, None
        if shut is not None:
            shut(verdict)

    def close(self) -> None:
        """See OpenStream."""
        self._shut = None
        self._cache.unregister(self._gate)


class _NotWatched:
    __slots__ = ()

    def close(self) -> None:
        pass


class Caching:
    """The memory of a verifier, what it may ask, and how it is doing."""

    def __init__(
        self,
        *,
        name: str,
        lease_seconds: float = LEASE_SECONDS_DEFAULT,
        limits: CacheLimits | None = None,
        miss_limits: MissLimits | None = None,
        token_prefix: str = PREFIX_DEFAULT,
        clock: Clock | None = None,
    ) -> None:
        if not 0 < lease_seconds <= _LEASE_SECONDS_MAX:
            raise ValueError("lease_seconds must be positive, and a day at most")
        if not 0 < len(name) <= NAME_LENGTH_MAX:
            raise ValueError("name must have 1 to 255 characters")
        self._name: Final = name
        self._lease_seconds: Final = lease_seconds
        self._prefix: Final = check_prefix(token_prefix)
        self._misses: Final = Misses(miss_limits or MissLimits())
        self._attachment = Attachment(name)
        self._asked_count = 0
        self._seen = (b"", 0)
        self._due: Final[deque[WatchedStream]] = deque()
        self._cache: Cache | None = None
        try:
            self._clock: Clock | None = clock or SystemClock()
        except ClockMissingError:
            self._clock = None
            self._attachment.unclocked()
        else:
            self._cache = Cache(self._clock, limits=limits, token_prefix=token_prefix)

    def check_now(self, token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
        """See ImmediateVerifier."""
        cache = self._cache
        return None if cache is None else cache.decide(token, required_scopes)

    def count_bound(self, bound: Bound, required_scopes: tuple[str, ...], address: str, *, is_admitted: bool) -> None:
        """See BoundCounter. Also of calls that the authority was asked about: it does not know what became of them."""
        if self._cache is not None:
            token_id = bound.verdict.identity.token_id
            self._cache.uses.count_bound(token_id, required_scopes, address, is_admitted=is_admitted)

    def _question(self, token: str, required_scopes: tuple[str, ...], address: str) -> Question:
        """For a call that needs `required_scopes`."""
        cache = self._cache
        counts = cache is not None and cache.uses.is_counting
        return Question(token, required_scopes, address, reports_uses=counts)

    def _first_use(self, token: str, required_scopes: tuple[str, ...], address: str) -> Verdict | None:
        """As check_now, and also where a use has to be noted with the caller's address."""
        cache = self._cache
        if cache is None or not cache.uses.is_counting:
            return None
        return cache.decide(token, required_scopes, address=address)

    def _look_again(self, stream: WatchedStream) -> Verdict | None:
        """What is known of an open stream's token. That is no use of it."""
        cache = self._cache
        return None if cache is None else cache.decide(stream.token, stream.required_scopes, is_use=False)

    def open_stream(
        self, token: str, required_scopes: tuple[str, ...], shut: Callable[[Verdict], None]
    ) -> WatchedStream | _NotWatched:
        """See StreamGates."""
        if self._cache is None or not self._is_token(token):
            return _NotWatched()
        return WatchedStream(self._cache, token, required_scopes, shut, self._doubt, self._recheck)

    def _is_token(self, token: str) -> bool:
        """By its shape and checksum. Nobody can be asked about anything else."""
        try:
            parse_token(token, self._prefix)
        except MalformedTokenError:
            return False
        return True

    def status(self) -> VerifierStatus:
        """How the verifier is doing now."""
        cache, attachment = self._cache, self._attachment
        if cache is None or self._clock is None:
            return VerifierStatus(
                caching=False,
                reason=attachment.reason,
                attached=False,
                last_error=None,
                misses=self._asked_count,
                limited=self._misses.limited_count,
            )
        remaining_seconds = cache.lease.remaining_seconds(self._clock)
        caching = remaining_seconds > 0
        epoch, applied, counts = cache.epoch, cache.applied, cache.counts
        seen_epoch, seen_number = self._seen
        return VerifierStatus(
            caching=caching,
            reason=None if caching else attachment.reason,
            attached=attachment.is_attached,
            last_error=attachment.last_error,
            lease_remaining_seconds=remaining_seconds,
            epoch=epoch,
            applied=applied,
            lag=max(0, seen_number - applied) if seen_epoch == epoch else 0,
            entries=cache.entries,
            negative_entries=cache.negative_entries,
            size_bytes=cache.size_bytes,
            hits=counts.hits + counts.negative_hits,
            misses=self._asked_count,
            joins=counts.joins,
            limited=self._misses.limited_count,
            evictions=counts.evictions,
            flushes=counts.flushes,
            changes=counts.changes,
            uses_dropped=cache.uses.dropped_count,
        )

    def _session(self, cache: Cache, clock: Clock) -> WatchSession:
        return WatchSession(
            cache,
            clock,
            lease_seconds=self._lease_seconds,
            name=self._name,
            instance=f"{socket.gethostname()}:{os.getpid()}"[:NAME_LENGTH_MAX],
            library=LIBRARY,
        )

    def _answered(self, answer: Answer) -> None:
        position = answer.position
        if position.epoch != self._seen[0] or position.number > self._seen[1]:
            self._seen = (position.epoch, position.number)

    def _doubt(self, stream: WatchedStream) -> None:
        """Its token has changed: it goes before those that are only due."""
        if not stream.is_doubted:
            # Where it waited already, it is passed over there.
            stream.is_due = stream.is_doubted = True
            self._due.appendleft(stream)
        self._look_soon()

    def _look_soon(self) -> None:
        """Does not wait until open streams are looked at anyway."""

    def _recheck(self, stream: WatchedStream) -> None:
        if not stream.is_due:
            stream.is_due = True
            self._due.append(stream)

    def _forked(self) -> None:
        """In the child, where no watch is open. The cache has seen to itself."""
        self._due.clear()
        self._attachment = Attachment(self._name)

    def _streams_due(self) -> list[WatchedStream]:
        """The open streams to be judged again now. None without a lease: then nothing is heard of any token, and the
        next message of each stream is judged by asking.
        """
        cache, clock = self._cache, self._clock
        if cache is None or clock is None:
            return []
        if not cache.lease.live(clock):
            for _ in range(len(self._due)):
                if (stream := self._due.popleft()).is_open:
                    self._due.append(stream)
            return []
        cache.expire_gates()
        due = []
        for _ in range(min(len(self._due), RECHECKS_MAX)):
            stream = self._due.popleft()
            was_due, stream.is_due, stream.is_doubted = stream.is_due, False, False
            if was_due and stream.is_open:
                due.append(stream)
        return due
