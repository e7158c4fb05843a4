"""Who used which token where, counted in memory until it is stored: never on the path of a check.

The service counts what it answers, verifiers report what they admitted from memory; both come together here, merged
by token and service, and leave in chunks. What is lost with the process is a count, and no verdict rests on it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from watchword.network import canonical_address
from watchword_server.rules.tokens import WATCHWORD, TokenRecord
from watchword_server.store.contract import Use

KEYS_MAX: Final = 100_000
SCOPES_PER_USE_MAX: Final = 64
SCOPES_PER_KEY: Final = 4
"""How many scopes are kept for each key on average: a thousand tokens with the longest scopes must not fill memory."""
REPORTED_SHARE_MAX: Final = 0.5
"""How much of the room one service may fill by what it reports, of which nobody has seen the tokens yet: whoever makes
up a hundred thousand must not push out what is known of everybody else's."""
ADDRESS_CHARACTERS_MAX: Final = 45
"""The longest IPv6 address in text."""


class _Held:
    """What is held of one service."""

    __slots__ = ("keys", "scopes")

    def __init__(self) -> None:
        self.keys = 0
        self.scopes = 0


class _Uses:
    """Of one token at one service, since they were last stored."""

    __slots__ = ("address", "count", "held", "required", "scopes", "used_at")

    def __init__(self, held: _Held) -> None:
        self.held = held
        self.count = 0
        self.used_at = 0.0
        self.address = ""
        self.required: Sequence[str] = ()
        """Of the latest use: most uses of a token need the same."""
        self.scopes: set[str] = set()


class UsageBuffer:
    """Uses that are not stored yet; at most `keys_max` pairs of a token and a service, of which the oldest give way.

    `clock` gives seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float], *, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock
        self._keys_max = keys_max
        self._uses: OrderedDict[tuple[UUID, str], _Uses] = OrderedDict()
        self._held: defaultdict[str, _Held] = defaultdict(_Held)
        self._scopes_count = 0
        self.counted = 0
        """Uses that came in."""
        self.dropped = 0
        """Uses that gave way to others, and were never stored."""

    def __len__(self) -> int:
        return len(self._uses)

    def count(self, record: TokenRecord, service: str, address: str, required: Sequence[str]) -> None:
        """One use of a token at a service, now. On the path of every answer (about 0.4 us)."""
        uses = self._uses.get((record.token_id, service))
        if uses is None:
            uses = self._new((record.token_id, service))
        uses.count += 1
        uses.used_at = self._clock()
        self.counted += 1
        if address:
            uses.address = address[:ADDRESS_CHARACTERS_MAX]
        if required and required != uses.required:
            self._need(uses, required)

    def count_call(self, record: TokenRecord, address: Callable[[], str], required: Sequence[str]) -> None:
        """One call to Watchword itself. Its address is asked for now and then only: that costs more than the rest."""
        new = (record.token_id, WATCHWORD) not in self._uses
        self.count(record, WATCHWORD, address() if new else "", required)

    def add(self, uses: Sequence[Use]) -> None:
        """What a verifier reported just now."""
        now = self._clock()
        keys_max = self._keys_max * REPORTED_SHARE_MAX
        scopes_max = keys_max * SCOPES_PER_KEY
        for use in uses:
            held = self._held.get(use.service)
            if held is not None and held.keys >= keys_max and (use.token_id, use.service) not in self._uses:
                self.counted += use.count
                self.dropped += use.count
                continue
            self._merge(use, now - use.used_ago_seconds, scopes_max)

    def take(self, limit: int) -> list[Use]:
        """The oldest, at most so many, which are here no longer."""
        now = self._clock()
        taken: list[Use] = []
        while self._uses and len(taken) < limit:
            (token_id, service), uses = self._pop()
            address = canonical_address(uses.address)
            taken.append(Use(token_id, service, uses.count, now - uses.used_at, address, sorted(uses.scopes)))
        return taken

    def give_back(self, uses: Sequence[Use], seconds_ago: float) -> None:
        """What was taken so long ago and could not be stored. It is the oldest, and gives way first."""
        now = self._clock() - seconds_ago
        for use in reversed(uses):
            key = (use.token_id, use.service)
            if key not in self._uses and len(self._uses) >= self._keys_max:
                self.dropped += use.count
                continue
            self._merge(use, now - use.used_ago_seconds, self._keys_max * SCOPES_PER_KEY)
            self.counted -= use.count
            self._uses.move_to_end(key, last=False)

    def drop(self, uses: Sequence[Use]) -> None:
        """What was taken and can never be stored."""
        self.dropped += sum(use.count for use in uses)

    def _merge(self, use: Use, used_at: float, scopes_max: float) -> None:
        key = (use.token_id, use.service)
        uses = self._uses.get(key)
        if uses is None:
            uses = self._new(key)
        uses.count += use.count
        self.counted += use.count
        if use.address and (used_at >= uses.used_at or not uses.address):
            uses.address = use.address[:ADDRESS_CHARACTERS_MAX]
        uses.used_at = max(uses.used_at, used_at)
        if uses.held.scopes < scopes_max:
            self._need(uses, use.scopes)

    def _new(self, key: tuple[UUID, str]) -> _Uses:
        if len(self._uses) >= self._keys_max:
            _, oldest = self._pop()
            self.dropped += oldest.count
        held = self._held[key[1]]
        held.keys += 1
        made = self._uses[key] = _Uses(held)
        # Not 0: a clock may begin anywhere, and what is given back was used earlier.
        made.used_at = float("-inf")
        return made

    def _pop(self) -> tuple[tuple[UUID, str], _Uses]:
        key, uses = self._uses.popitem(last=False)
        self._scopes_count -= len(uses.scopes)
        uses.held.scopes -= len(uses.scopes)
        uses.held.keys -= 1
        if not uses.held.keys:
            del self._held[key[1]]
        return key, uses

    def _need(self, uses: _Uses, required: Sequence[str]) -> None:
        # What is kept to compare with counts for nothing in the limit: so it is short.
        uses.required = required if len(required) <= SCOPES_PER_KEY else ()
        for scope in required:
            if (
                scope not in uses.scopes
                and len(uses.scopes) < SCOPES_PER_USE_MAX
                and self._scopes_count < self._keys_max * SCOPES_PER_KEY
            ):
                uses.scopes.add(scope)
                self._scopes_count += 1
                uses.held.scopes += 1
