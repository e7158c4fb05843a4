"""What one verifier remembers, and when it may rely on it. No I/O: the clock is an argument, the stream calls in.

One lock guards everything: a decision, a check-and-insert, a change and a flush exclude one another. The rules
are in `docs/protocol.md`. Each mechanism is a method of its own, so that a test can take it away and see the checker
fail.
"""

from __future__ import annotations

import hmac
import itertools
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import blake2b
from typing import Any, Final

from watchword.lease import Clock, Instant, Lease, holder_end
from watchword.token import BODY_LENGTH, ID_LENGTH, PREFIX_DEFAULT, check_prefix
from watchword.verifier.entries import BadTokens, GoodTokens
from watchword.verifier.gates import Gate, Gates, call_all
from watchword.verifier.limits import CacheCounts, CacheLimits
from watchword.verifier.lookup import Lookup
from watchword.verifier.recent import RecentChanges
from watchword.verifier.usage import Uses
from watchword.verifier.verdict import Active, Answer, Bound, Inactive, Verdict

_INACTIVE: Final = Inactive()
_KEY_BYTES: Final = 16
# An idle stream whose answer could not be kept is judged again no sooner.
_RECHECK_SECONDS_MIN: Final = 5.0


class Cache:
    """The memory of one verifier.

    `lock` makes the lock; `threading.Lock` serves event loops as well: it is never held over anything slow. After a
    fork the child has lost everything, its lease first, and is a verifier of its own.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limits: CacheLimits | None = None,
        token_prefix: str = PREFIX_DEFAULT,
        lock: Callable[[], AbstractContextManager[Any]] = threading.Lock,
    ) -> None:
        self.limits: Final = limits or CacheLimits()
        self._clock: Final = clock
        id_from = len(check_prefix(token_prefix))
        self._id: Final = slice(id_from, id_from + ID_LENGTH)
        """Where in a token its id stands."""
        self._length: Final = id_from + BODY_LENGTH
        self._new_lock: Final = lock
        self._nonces: Final = itertools.count(1)
        self.lease = Lease()
        self.counts: Final = CacheCounts()
        self._good: Final = GoodTokens(self.limits.entries_max, self.limits.bytes_max)
        self._bad: Final = BadTokens(self.limits.negative_entries_max)
        self._recent: Final = RecentChanges(self.limits.changes_kept_max)
        self.uses: Final = Uses(self.limits.uses_max, clock, lambda: self._lock)
        self._under_way: Final[dict[bytes, Lookup]] = {}
        self._gates: Final = Gates()
        # Lookups and streams that ended and are still to be taken off, once somebody holds the lock anyway.
        self._endings: Final[deque[Callable[[], None]]] = deque()
        self.epoch: bytes | None = None
        """Of the positions; None before the first flush."""
        self.applied = 0
        """Every change up to here has been seen, or everything from before it forgotten."""
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            begin_anew = weakref.WeakMethod(self._begin_anew)
            os.register_at_fork(after_in_child=lambda: (method := begin_anew()) and method())

    def __repr__(self) -> str:
        return f"Cache({len(self._good)} entries, applied={self.applied})"

    # Decisions

    def decide(
        self, token: str, required_scopes: tuple[str, ...] = (), *, address: str | None = None, is_use: bool = True
    ) -> Verdict | None:
        """What is known of `token` now, for a call that needs all `required_scopes`; None: the authority must be asked.

        While uses are counted, a token's first use of a kind since the last report is None as well unless `address`
        says where the call comes from, empty if that is not known. Nothing is counted unless it `is_use`. Never raises,
        whatever `token` is.
        """
        if len(token) != self._length or not token.isascii():
            return None
        proof = self._prove(token)
        with self._lock:
            # The clock, then the lease, then the entry, under the lock that changes take: a stop of any length between
            # two of these steps cannot make a decision out of what had ceased to hold when it was invoked. Held by
            # tests/client/test_cache.py.
            if not self.lease.live(self._clock):
                return None
            return self._find(token[self._id], proof, required_scopes, address, is_use)

    def _find(
        self, token_id: str, proof: bytes, required_scopes: tuple[str, ...], address: str | None, is_use: bool
    ) -> Verdict | None:
        now = self._clock.boottime()
        entry = self._good.get(token_id)
        if entry is not None and hmac.compare_digest(entry.proof, proof):
            if now < entry.ends_at:
                verdict = entry.judge(required_scopes)
                # A call with a bound token is counted once it is known whether it matches: Uses.count_bound.
                if (
                    self.uses.is_counting
                    and is_use
                    and isinstance(verdict, Active)
                    and not self.uses.count(entry, required_scopes, now, address)
                ):
                    return None
                entry.used = True
                self.counts.hits += 1
                return verdict
            self._good.remove(token_id)
        elif now < self._bad.get(proof, 0.0):
            self.counts.negative_hits += 1
            return _INACTIVE
        return None

    # Lookups: rules 9, 10 and 13

    def begin(self, token: str, result: Any = None) -> Lookup:
        """A lookup of a well-formed `token`, to be called before the request is sent, and finished or abandoned after.

        `result` is handed to those who join it. Raises ValueError for what cannot be a token.
        """
        if len(token) != self._length or not token.isascii():
            raise ValueError("not a token")
        proof = self._prove(token)
        with self._lock:
            self._settle()
            lookup = Lookup(token[self._id], proof, self._clock.boottime(), result)
            self._under_way.setdefault(proof, lookup)
            return lookup

    def joinable(self, token: str) -> Lookup | None:
        """A lookup of the same token that is under way, if its answer may be of use. See `joined_may_use`."""
        if len(token) != self._length or not token.isascii():
            return None
        proof = self._prove(token)
        with self._lock:
            self._settle()
            lookup = self._under_way.get(proof)
            if lookup is None or not self._may_join():
                return None
            self.counts.joins += 1
            return lookup

    def joined_may_use(self, lookup: Lookup, answer: Answer) -> bool:
        """Whether one who joined may decide by the answer; otherwise it begins a lookup of its own, joining nobody."""
        with self._lock:
            return self._may_join() and self._still_holds(lookup, answer)

    def finish(self, lookup: Lookup, answer: Answer) -> None:
        """The answer has come. It is remembered if it still holds; its starter may use it once in any case."""
        now = self._clock.boottime()
        with self._lock:
            self._ended(lookup)
            ends_at = self._ends_at(lookup, answer)
            stored = now < ends_at and self._may_store(lookup, answer)
            if not isinstance(answer.verdict, Inactive):
                self._gates.extend(
                    lookup.token_id, lookup.proof, ends_at if stored else lookup.sent_at + _RECHECK_SECONDS_MIN
                )
            if stored:
                self._insert(lookup, answer, ends_at)

    def abandon(self, lookup: Lookup) -> None:
        """No answer will come. Takes no lock: may be called from a finalizer, in the middle of anything."""
        self._endings.append(partial(self._ended, lookup))

    def _settle(self) -> None:
        while self._endings:
            self._endings.popleft()()

    def _ended(self, lookup: Lookup) -> None:
        if self._under_way.get(lookup.proof) is lookup:
            del self._under_way[lookup.proof]

    def _may_join(self) -> bool:
        return self.lease.live(self._clock)

    def _may_store(self, lookup: Lookup, answer: Answer) -> bool:
        return self._still_holds(lookup, answer)

    def _still_holds(self, lookup: Lookup, answer: Answer) -> bool:
        """No change of the token was seen above the position of the answer, and none can have been missed."""
        number = answer.position.number
        return (
            answer.position.epoch == self.epoch
            and number >= self.floor
            and not self._recent.changed_above(lookup.token_id, number)
        )

    def _ends_at(self, lookup: Lookup, answer: Answer) -> float:
        seconds = min(answer.cacheable_for_seconds, self.limits.age_seconds_max)
        if isinstance(answer.verdict, Inactive):
            seconds = min(seconds, self.limits.negative_seconds_max)
        else:
            seconds = min(seconds, answer.remaining_seconds)
        return holder_end(lookup.sent_at, seconds)

    def _insert(self, lookup: Lookup, answer: Answer, ends_at: float) -> None:
        if isinstance(answer.verdict, Inactive):
            # An id is no secret. Who makes up a token around it must not push out the true one: test_cache.py.
            entry = self._good.get(lookup.token_id)
            if entry is not None and hmac.compare_digest(entry.proof, lookup.proof):
                self._good.remove(lookup.token_id)
            self._bad.put(lookup.proof, ends_at)
            return
        bindings = answer.verdict.bindings if isinstance(answer.verdict, Bound) else None
        verdict = answer.verdict.verdict if isinstance(answer.verdict, Bound) else answer.verdict
        # Changes name the id in the token: an entry under another one would never hear of them.
        if verdict.identity.token_id == lookup.token_id:
            self.counts.evictions += self._good.put(verdict.identity, lookup.proof, ends_at, bindings)

    # The stream

    def next_nonce(self) -> int:
        """Unique for the life of the process."""
        return next(self._nonces)

    def apply(self, number: int, token_ids: Sequence[str], *, everything: bool, last: bool) -> None:
        """What became less valid at position `number`, or a part of it. `token_ids` are texts of 22 characters.

        When it returns no entry of these tokens answers, and their streams are in doubt: whatever comes next on one of
        them is judged by asking.
        """
        with self._lock:
            self._settle()
            if number <= self.applied:
                return
            rechecks: Sequence[Gate] = ()
            if everything or number != self.applied + 1:
                # Something was missed, or concerns everybody. After a flush at `number` nothing is remembered, and
                # nothing read below `number` can be: what changed up to and at it is in every answer from now on,
                # whether it was seen here or not, also the parts of `number` itself that may have come before.
                rechecks = self._flush(number)
            self._forget(number, token_ids)
            # A position counts only at its last part.
            self.applied = number if last else number - 1
            if last:
                self.counts.changes += 1
            doubted = self._gates.of(token_ids)
        call_all(gate.doubt for gate in doubted)
        call_all(gate.recheck for gate in rechecks)

    def flush(self, epoch: bytes, number: int) -> None:
        """Forgets all, and goes on from `number` of `epoch`. The gates of all streams are to be judged again."""
        with self._lock:
            if epoch != self.epoch or number < self.applied:
                # Leases of another epoch are void. One that goes back in the same epoch has been promised more than it
                # will now know of.
                self._lapse()
            self.epoch = epoch
            rechecks = self._flush(number)
        call_all(gate.recheck for gate in rechecks)

    def grant(self, sent: Instant, lease_seconds: float, epoch: bytes, number: int) -> None:
        """A lease that was asked for at `sent`, by one who had sent everything up to `number`."""
        rechecks: Sequence[Gate] = ()
        with self._lock:
            if epoch != self.epoch or sent.boottime < self._lapsed_at:
                return
            if number > self.applied:
                rechecks = self._flush(number)
            self.lease.renew(sent, lease_seconds)
        call_all(gate.recheck for gate in rechecks)

    def lapse(self) -> None:
        """Stops relying on any lease."""
        with self._lock:
            self._lapse()

    def forget(self) -> None:
        """Begins anew: no lease, no epoch, nothing remembered. Open streams are judged again."""
        with self._lock:
            self._lapse()
            self.epoch = None
            rechecks = self._flush(0)
        call_all(gate.recheck for gate in rechecks)

    def _lapse(self) -> None:
        # What was asked for before then, on whichever stream, does not bring it back: the replica may have been told
        # that nobody need wait for it. Held by tests/model/test_two_streams.py.
        self.lease.lapse()
        self._lapsed_at = self._clock.boottime()

    def _forget(self, number: int, token_ids: Sequence[str]) -> None:
        for token_id in token_ids:
            self._good.remove(token_id)
            self._recent.note(token_id, number)

    def _flush(self, number: int) -> Sequence[Gate]:
        self._good.clear()
        self._bad.clear()
        self._recent.restart(number)
        self.applied = number
        self.counts.flushes += 1
        return self._gates.all()

    # Open streams: rule 12

    def register(self, token: str, doubt: Callable[[], None], recheck: Callable[[], None]) -> Gate:
        """The stream opened with `token` hears of changes from here on. To be called before its lookup begins.

        Both have it judged again in the background, `doubt` at once: its token has changed. A change need not end a
        token; one that was rotated lives on for a while. They are called from the thread that applies changes, must
        not block, and may be called more than once.
        """
        proof = self._prove(token)
        token_id = token[self._id]
        with self._lock:
            self._settle()
            entry = self._good.get(token_id)
            ends_at = self._clock.boottime() + _RECHECK_SECONDS_MIN
            if entry is not None and hmac.compare_digest(entry.proof, proof):
                ends_at = max(ends_at, entry.ends_at)
            gate = Gate(token_id, proof, ends_at, doubt, recheck)
            self._gates.add(gate)
            return gate

    def unregister(self, gate: Gate) -> None:
        """The stream has ended. Takes no lock: may be called from a finalizer, in the middle of anything."""
        self._endings.append(partial(self._gates.discard, gate))

    def expire_gates(self) -> None:
        """Has the streams judged again whose judgement has run out. To be called about once a second."""
        with self._lock:
            self._settle()
            now = self._clock.boottime()
            rechecks = self._gates.due(now, now + _RECHECK_SECONDS_MIN)
        call_all(gate.recheck for gate in rechecks)

    # Sizes and identity

    @property
    def floor(self) -> int:
        """Answers read below this position are not remembered."""
        return self._recent.floor

    @property
    def entries(self) -> int:
        """Good tokens remembered."""
        return len(self._good)

    @property
    def negative_entries(self) -> int:
        """Inactive tokens remembered."""
        return len(self._bad)

    @property
    def size_bytes(self) -> int:
        """Of the good tokens, estimated."""
        return self._good.size_bytes

    def _prove(self, token: str) -> bytes:
        """The keyed hash that stands for a token here. Without the key nothing can be found out from it."""
        hasher = self._hasher.copy()
        hasher.update(token.encode("utf-8", "replace"))
        return hasher.digest()

    def _begin_anew(self) -> None:
        # Also in the child of a fork, where another thread may have held the lock: it gets a new one. The lease goes
        # first. Held by tests/client/test_cache_fork.py.
        self._lapse()
        self._lock = self._new_lock()
        self._hasher = blake2b(key=secrets.token_bytes(_KEY_BYTES), digest_size=_KEY_BYTES)
        self.verifier_key = secrets.token_bytes(_KEY_BYTES)
        """Who this verifier is, to the authority."""
        self.epoch = None
        self.applied = 0
        self._good.clear()
        self._bad.clear()
        self._recent.restart(0)
        self._endings.clear()
        self._under_way.clear()
        self.uses.want(False)
        self._gates.clear()
