"""An authority in the process, with the real token format and the real rules. Public through watchword.testing."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from uuid import UUID

from watchword.identity import Identity
from watchword.network import Networks, canonical_network
from watchword.scope import RESERVED, is_scope_pattern, missing_scopes
from watchword.token import (
    PREFIX_DEFAULT,
    MalformedTokenError,
    check_prefix,
    format_token_id,
    new_token,
    new_token_id,
    parse_token,
    parse_token_id,
)
from watchword.verifier.contract import PeerName, VerifierUnavailableError
from watchword.verifier.verdict import Active, Bindings, Bound, Inactive, Insufficient, Verdict

TTL_SECONDS_DEFAULT = 90 * 24 * 3600.0
GRACE_SECONDS_DEFAULT = 3600.0
_SHA256_BYTES = 32


class TokenNotLiveError(ValueError):
    """There is no such token, or it has ended."""


class TokenRotatedError(ValueError):
    """The token has a successor already."""

    def __init__(self, successor_id: str) -> None:
        super().__init__("the token has a successor")
        self.successor_id = successor_id


@dataclass(frozen=True, slots=True)
class ReportedUse:
    """What a caching verifier reported of one token: what it admitted from memory since it last reported."""

    service: str
    """The verifier's subject."""
    token_id: str
    use_count: int
    ago_seconds: float
    address: str
    scopes: tuple[str, ...]
    refused_count: int
    refused_address: str


@dataclass(slots=True)
class Issued:
    """A token as the fake keeps it."""

    text: bytes = field(repr=False)
    identity: Identity
    created_at: float
    """Seconds since the epoch."""
    life_seconds: float
    ends_at: float
    """By the authority's clock."""
    allowed_networks: tuple[str, ...]
    certificate_sha256: bytes
    revoked: bool = False
    successor: Issued | None = None
    request_id: str = ""
    """Of the rotation that made the successor."""
    attempt: int = 0

    @property
    def bindings(self) -> Bindings | None:
        """What calls have to match, if anything."""
        if not self.allowed_networks and not self.certificate_sha256:
            return None
        return Bindings(Networks(self.allowed_networks), self.certificate_sha256)


class FakeAuthority:
    """Issues, rotates and revokes tokens, and judges them as Watchword does: format, secret, expiry, audience, scopes.

    Grants, persistence and the catalogue of scopes are not imitated. `clock` gives seconds that only move forward; pass
    one of your own to let tokens expire without waiting. Thread-safe.
    """

    def __init__(self, *, token_prefix: str = PREFIX_DEFAULT, clock: Callable[[], float] = time.monotonic) -> None:
        self.token_prefix = check_prefix(token_prefix)
        self._clock = clock
        self._lock = threading.RLock()
        self._issued: dict[UUID, Issued] = {}
        self._outages = 0
        self._changes: list[str] = []
        self._listeners: list[Callable[[int, str], None]] = []
        self.epoch = secrets.token_bytes(16)
        """As the positions of every authority have one."""
        self.checks_count = 0
        """How many checks were answered or failed since the beginning."""
        self.reported: list[ReportedUse] = []
        """What was reported, in the order it came."""

    def issue(
        self,
        subject: str = "someone",
        *,
        scopes: Iterable[str] = (),
        audiences: Iterable[str] = ("*",),
        ttl_seconds: float = TTL_SECONDS_DEFAULT,
        metadata: Mapping[str, str] | None = None,
        allowed_networks: Iterable[str] = (),
        certificate_sha256: bytes = b"",
    ) -> str:
        """A new token, whole. `*`, the default, is every audience except Watchword itself.

        Raises ValueError for what could not be issued: a misspelt scope would make a test pass for no reason.
        """
        held = tuple(scopes)
        for scope in held:
            if not is_scope_pattern(scope):
                raise ValueError(f"{scope!r} is not a scope")
        networks = tuple(map(canonical_network, allowed_networks))
        if len(certificate_sha256) not in (0, _SHA256_BYTES):
            raise ValueError("certificate_sha256 has 32 bytes")
        identity = Identity("", subject, held, tuple(audiences), MappingProxyType(dict(metadata or {})))
        return self._issue(identity, ttl_seconds, networks, certificate_sha256).text.decode("ascii")

    def rotate(
        self,
        token: str,
        *,
        ttl_seconds: float | None = None,
        grace_seconds: float = GRACE_SECONDS_DEFAULT,
        request_id: str = "",
        attempt: int = 0,
    ) -> str:
        """A successor with the same rights, whole; `token` ends after `grace_seconds`. With the `request_id` of an
        earlier rotation, and a greater `attempt` or none, it ends that one's successor, and makes another.

        Raises TokenNotLiveError, TokenRotatedError and MalformedTokenError.
        """
        with self._lock:
            found = self._find(token)
            if found is None or not self.is_live(found):
                raise TokenNotLiveError("the token is not live")
            if found.successor is not None:
                is_retry = request_id != "" and request_id == found.request_id
                if not is_retry or 0 < attempt <= found.attempt:
                    raise TokenRotatedError(found.successor.identity.token_id)
                self._end(found.successor)
            life_seconds = found.life_seconds if ttl_seconds is None else ttl_seconds
            successor = self._issue(found.identity, life_seconds, found.allowed_networks, found.certificate_sha256)
            found.successor, found.request_id, found.attempt = successor, request_id, attempt
            found.ends_at = min(found.ends_at, self._clock() + grace_seconds)
            self._tell(found)
            return successor.text.decode("ascii")

    def narrow(self, token_id: str, *, remove_scopes: Iterable[str] = (), ttl_seconds: float | None = None) -> Issued:
        """Takes scopes from a token, or shortens its life. Raises ValueError for what it does not have."""
        removed = tuple(remove_scopes)
        with self._lock:
            found = self.find(token_id)
            if found is None or not self.is_live(found):
                raise TokenNotLiveError("the token is not live")
            ends_at = found.ends_at if ttl_seconds is None else self._clock() + ttl_seconds
            if ends_at > found.ends_at or not set(removed) <= set(found.identity.scopes):
                raise ValueError("a token is narrowed by scopes that it holds, and to an earlier end")
            scopes = tuple(scope for scope in found.identity.scopes if scope not in removed)
            found.identity, found.ends_at = replace(found.identity, scopes=scopes), ends_at
            self._tell(found)
            return found

    def revoke(self, token: str) -> bool:
        """Ends a token; whether it was live. From here on no check finds it active. Raises MalformedTokenError."""
        with self._lock:
            found = self._find(token)
            if found is None or found.revoked:
                return False
            self._end(found)
            return True

    def still(self) -> AbstractContextManager[object]:
        """Inside no token becomes less valid."""
        return self._lock

    @property
    def position(self) -> int:
        """How many times a token became less valid."""
        return len(self._changes)

    def listen(self, listener: Callable[[int, str], None]) -> Callable[[], None]:
        """Has `listener` called with the position and the token's id when one becomes less valid, before any check can
        see it. Gives what ends that.
        """
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def changes_after(self, position: int) -> list[tuple[int, str]]:
        """What became less valid after `position`, with the position of each."""
        return list(enumerate(self._changes, start=1))[position:]

    def remaining_seconds(self, token_id: str) -> float:
        """Until the token ends; 0 if it is unknown or has ended."""
        with self._lock:
            found = self.find(token_id)
            return 0.0 if found is None or found.revoked else max(0.0, found.ends_at - self._clock())

    def find(self, token_id: str) -> Issued | None:
        """The token with this id, live or not."""
        return self._issued.get(parse_token_id(token_id))

    def present(self, token: str) -> Issued:
        """The token that was issued as `token`. Raises TokenNotLiveError and MalformedTokenError."""
        found = self._find(token)
        if found is None:
            raise TokenNotLiveError("there is no such token")
        return found

    def is_live(self, issued: Issued) -> bool:
        """Neither revoked nor at its end."""
        return not issued.revoked and self._clock() < issued.ends_at

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """An outage: inside, nothing can be verified."""
        with self._lock:
            self._outages += 1
        try:
            yield
        finally:
            with self._lock:
                self._outages -= 1

    def verifier(self, subject: str = "service-under-test") -> FakeVerifier:
        """A verifier for watchword.aio.ServerInterceptor; `subject` is the audience that tokens have to name."""
        return FakeVerifier(self, subject)

    def blocking_verifier(self, subject: str = "service-under-test") -> BlockingFakeVerifier:
        """A verifier for watchword.sync.ServerInterceptor."""
        return BlockingFakeVerifier(self, subject)

    def judge(self, token: str, required_scopes: Iterable[str], audience: str) -> Verdict:
        """What Watchword would tell the service `audience`. Raises VerifierUnavailableError during an outage."""
        with self._lock:
            self.checks_count += 1
            if self._outages:
                raise VerifierUnavailableError("UNAVAILABLE")
            try:
                found = self._find(token)
            except MalformedTokenError:
                return Inactive(malformed=True)
            if found is None or not self.is_live(found):
                return Inactive()
            identity, bindings = found.identity, found.bindings
        # As scopes: `*` reaches everything but Watchword, which has to be written out.
        if audience not in identity.audiences and ("*" not in identity.audiences or audience == RESERVED):
            return Inactive()
        missing = missing_scopes(identity.scopes, required_scopes)
        verdict = Insufficient(identity, tuple(missing)) if missing else Active(identity)
        return verdict if bindings is None else Bound(bindings, verdict)

    def raise_if_unavailable(self) -> None:
        """Raises VerifierUnavailableError during an outage."""
        with self._lock:
            if self._outages:
                raise VerifierUnavailableError("UNAVAILABLE")

    def _issue(
        self, identity: Identity, ttl_seconds: float, allowed_networks: tuple[str, ...], certificate_sha256: bytes
    ) -> Issued:
        now = time.time()
        token = new_token(new_token_id(int((now + ttl_seconds) * 1000)), self.token_prefix)
        identity = replace(identity, token_id=format_token_id(token.token_id))
        ends_at = self._clock() + ttl_seconds
        issued = Issued(token.text, identity, now, ttl_seconds, ends_at, allowed_networks, certificate_sha256)
        with self._lock:
            self._issued[token.token_id] = issued
        return issued

    def _end(self, issued: Issued) -> None:
        issued.revoked = True
        self._tell(issued)

    def _tell(self, issued: Issued) -> None:
        """The token has become less valid; the lock is held."""
        self._changes.append(issued.identity.token_id)
        for listener in self._listeners:
            listener(len(self._changes), issued.identity.token_id)

    def _find(self, token: str) -> Issued | None:
        parsed = parse_token(token, self.token_prefix)
        found = self._issued.get(parsed.token_id)
        return found if found is not None and found.text == parsed.text else None


class FakeVerifier:
    """A watchword.verifier.Verifier that asks a FakeAuthority."""

    def __init__(self, authority: FakeAuthority, subject: str) -> None:
        self._authority = authority
        self._subject = subject

    async def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """See Verifier."""
        return self._authority.judge(token, required_scopes, self._subject)


class BlockingFakeVerifier:
    """A watchword.verifier.BlockingVerifier that asks a FakeAuthority."""

    def __init__(self, authority: FakeAuthority, subject: str) -> None:
        self._authority = authority
        self._subject = subject

    def check(self, token: str, required_scopes: tuple[str, ...], *, peer: PeerName | None = None) -> Verdict:
        """See BlockingVerifier."""
        return self._authority.judge(token, required_scopes, self._subject)
