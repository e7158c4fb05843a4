"""What is remembered of tokens: a pool of good ones and a pool of bad ones, each with its own bound.

Nothing here is in force without a live lease; that, and which answers may be put in, is the cache's affair.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from sys import getsizeof
from typing import Final

from watchword.identity import Identity
from watchword.network import Networks
from watchword.scope import missing_scopes
from watchword.verifier.usage import UNUSED, Use
from watchword.verifier.verdict import Active, Bindings, Bound, Inactive, Insufficient, Verdict

# What an entry costs beside its subject: itself, identity, verdict, id, proof and its place in the pool. Measured;
# tests/client/test_cache_pools.py holds the sum.
_ENTRY_BYTES: Final = 488
_BOUND_BYTES: Final = 176
_PROFILE_BYTES: Final = 900
_NETWORK_BYTES: Final = 400
# How many different requirements a profile remembers to cover. A server has as many as it has rules.
_COVERED_MAX: Final = 256
# How many entries get a second chance before one is dropped all the same, so that no insert takes long.
_CHANCES_MAX: Final = 16

_ProfileKey = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...], Networks]
_ANYWHERE: Final = Networks()


def judge(verdict: Verdict, required_scopes: tuple[str, ...]) -> Verdict:
    """What a verdict that was given for other requirements means for a call that needs `required_scopes`."""
    if isinstance(verdict, Inactive):
        return verdict
    if isinstance(verdict, Bound):
        return Bound(verdict.bindings, _judge(verdict.verdict, required_scopes))
    return _judge(verdict, required_scopes)


def _judge(verdict: Active | Insufficient, required_scopes: tuple[str, ...]) -> Active | Insufficient:
    missing = missing_scopes(verdict.identity.scopes, required_scopes)
    return Insufficient(verdict.identity, tuple(missing)) if missing else Active(verdict.identity)


class Profile:
    """What tokens have in common: scopes, audiences, metadata, networks. Held once however many tokens share it."""

    __slots__ = ("allowed_networks", "audiences", "covered", "entries_count", "key", "metadata", "scopes", "size_bytes")

    def __init__(self, key: _ProfileKey, identity: Identity, allowed_networks: Networks) -> None:
        self.key: Final = key
        self.allowed_networks: Final = allowed_networks
        self.scopes: Final = identity.scopes
        self.audiences: Final = identity.audiences
        self.metadata: Final[Mapping[str, str]] = identity.metadata
        self.covered: Final[dict[tuple[str, ...], int]] = {}
        """Requirements these scopes are known to cover, each with a bit of its own."""
        self.entries_count = 0
        texts = [*self.scopes, *self.audiences, *self.metadata.keys(), *self.metadata.values()]
        networks_bytes = _NETWORK_BYTES * len(allowed_networks)
        self.size_bytes: Final = _PROFILE_BYTES + networks_bytes + sum(getsizeof(text) + 64 for text in texts)


class Entry:
    """A good token, as far as is known."""

    __slots__ = ("active", "ends_at", "profile", "proof", "use", "used")

    def __init__(self, active: Active | Bound, profile: Profile, proof: bytes, ends_at: float) -> None:
        self.active: Final = active
        self.profile: Final = profile
        self.proof: Final = proof
        """The keyed hash of the whole token: whoever knows no more than the id has no hit."""
        self.ends_at: Final = ends_at
        self.used = False
        self.use: Use = UNUSED
        """Where its uses are counted. Which is another one after each report."""

    @property
    def identity(self) -> Identity:
        """Its holder."""
        return self.active.verdict.identity if isinstance(self.active, Bound) else self.active.identity

    def judge(self, required_scopes: tuple[str, ...]) -> Active | Insufficient | Bound:
        """The verdict for a call that needs `required_scopes`."""
        covered = self.profile.covered
        if required_scopes in covered:
            return self.active
        missing = missing_scopes(self.profile.scopes, required_scopes)
        if missing:
            lacking = Insufficient(self.identity, tuple(missing))
            if isinstance(self.active, Bound):
                return Bound(self.active.bindings, lacking)
            return lacking
        if len(covered) < _COVERED_MAX:
            covered[required_scopes] = 1 << len(covered)
        return self.active

    @property
    def size_bytes(self) -> int:
        """What it costs, about, without the profile."""
        bound_bytes = _BOUND_BYTES if isinstance(self.active, Bound) else 0
        return _ENTRY_BYTES + bound_bytes + getsizeof(self.identity.subject)

    def __repr__(self) -> str:
        return f"Entry({self.identity.token_id})"


class GoodTokens:
    """Entries by token id, at most `entries_max` and about `bytes_max`. Who is not asked for goes first.

    Second chance: an approximation of "least recently used" in which a hit costs one store. Nothing ever looks at all
    entries; those that have ended stay until they are asked for or pushed out.
    """

    __slots__ = ("_entries", "_profiles", "bytes_max", "entries_max", "get", "size_bytes")

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self.entries_max: Final = entries_max
        self.bytes_max: Final = bytes_max
        self.size_bytes = 0
        self._entries: Final[OrderedDict[str, Entry]] = OrderedDict()
        self._profiles: Final[dict[_ProfileKey, Profile]] = {}
        self.get: Final = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, identity: Identity, proof: bytes, ends_at: float, bindings: Bindings | None = None) -> int:
        """Remembers a token in place of what was known of it; how many others had to go."""
        self.remove(identity.token_id)
        profile = self._profile(identity, _ANYWHERE if bindings is None else bindings.allowed_networks)
        # Built anew around the shared parts: the ones that came with the answer go with it.
        identity = Identity(identity.token_id, identity.subject, profile.scopes, profile.audiences, profile.metadata)
        active: Active | Bound = Active(identity)
        if bindings is not None:
            bindings = Bindings(profile.allowed_networks, bindings.certificate_sha256)
            active = Bound(bindings, Active(identity))
        entry = Entry(active, profile, proof, ends_at)
        profile.entries_count += 1
        self.size_bytes += entry.size_bytes
        evicted = 0
        while self._entries and (len(self._entries) >= self.entries_max or self.size_bytes > self.bytes_max):
            self._evict()
            evicted += 1
        if self.size_bytes <= self.bytes_max:
            self._entries[identity.token_id] = entry
        else:
            self._release(entry)
        return evicted

    def remove(self, token_id: str) -> None:
        """Forgets a token."""
        entry = self._entries.pop(token_id, None)
        if entry is not None:
            self._release(entry)

    def clear(self) -> None:
        """Forgets all."""
        self._entries.clear()
        self._profiles.clear()
        self.size_bytes = 0

    def _evict(self) -> None:
        for _ in range(_CHANCES_MAX):
            entry = next(iter(self._entries.values()))
            if not entry.used:
                break
            entry.used = False
            self._entries.move_to_end(entry.identity.token_id)
        self._release(self._entries.popitem(last=False)[1])

    def _profile(self, identity: Identity, allowed_networks: Networks) -> Profile:
        key = (identity.scopes, identity.audiences, tuple(sorted(identity.metadata.items())), allowed_networks)
        profile = self._profiles.get(key)
        if profile is None:
            profile = self._profiles[key] = Profile(key, identity, allowed_networks)
            self.size_bytes += profile.size_bytes
        return profile

    def _release(self, entry: Entry) -> None:
        self.size_bytes -= entry.size_bytes
        profile = entry.profile
        profile.entries_count -= 1
        if not profile.entries_count:
            del self._profiles[profile.key]
            self.size_bytes -= profile.size_bytes


class BadTokens:
    """Until when tokens are known to be inactive, by proof. First in, first out: junk pushes out nothing but junk."""

    __slots__ = ("_ends_at", "entries_max", "get")

    def __init__(self, entries_max: int) -> None:
        self.entries_max: Final = entries_max
        self._ends_at: Final[OrderedDict[bytes, float]] = OrderedDict()
        self.get: Final = self._ends_at.get

    def __len__(self) -> int:
        return len(self._ends_at)

    def put(self, proof: bytes, ends_at: float) -> int:
        """Remembers a token; how many others had to go."""
        self._ends_at[proof] = ends_at
        self._ends_at.move_to_end(proof)
        if len(self._ends_at) <= self.entries_max:
            return 0
        self._ends_at.popitem(last=False)
        return 1

    def clear(self) -> None:
        """Forgets all."""
        self._ends_at.clear()
