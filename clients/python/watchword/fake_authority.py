"""An authority in the process, with the real token format and the real rules. Public through watchword.testing."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from watchword.identity import Identity
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
from watchword.verifier.verdict import Active, Inactive, Insufficient, Verdict

TTL_SECONDS_DEFAULT = 90 * 24 * 3600.0


@dataclass(slots=True)
class _Issued:
    text: bytes = field(repr=False)
    identity: Identity
    ends_at: float
    revoked: bool = False


class FakeAuthority:
    """Issues tokens, revokes them, and judges them as Watchword does: format, secret, expiry, audience, scopes.

    Grants, persistence and the catalogue of scopes are not imitated. `clock` gives seconds that only move forward; pass
    one of your own to let tokens expire without waiting. Thread-safe.
    """

    def __init__(self, *, token_prefix: str = PREFIX_DEFAULT, clock: Callable[[], float] = time.monotonic) -> None:
        self.token_prefix = check_prefix(token_prefix)
        self._clock = clock
        self._lock = threading.RLock()
        self._issued: dict[UUID, _Issued] = {}
        self._outages = 0
        self._changes: list[str] = []
        self._listeners: list[Callable[[int, str], None]] = []
        self.epoch = secrets.token_bytes(16)
        """As the positions of every authority have one."""
        self.checks_count = 0
        """How many checks were answered or failed since the beginning."""

    def issue(
        self,
        subject: str = "someone",
        *,
        scopes: Iterable[str] = (),
        audiences: Iterable[str] = ("*",),
        ttl_seconds: float = TTL_SECONDS_DEFAULT,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """A new token, whole. `*`, the default, is every audience except Watchword itself.

        Raises ValueError for a scope that could not be issued: a misspelt one would make a test pass for no reason.
        """
        held = tuple(scopes)
        for scope in held:
            if not is_scope_pattern(scope):
                raise ValueError(f"{scope!r} is not a scope")
        token = new_token(new_token_id(int((time.time() + ttl_seconds) * 1000)), self.token_prefix)
        identity = Identity(
            format_token_id(token.token_id), subject, held, tuple(audiences), MappingProxyType(dict(metadata or {}))
        )
        with self._lock:
            self._issued[token.token_id] = _Issued(token.text, identity, self._clock() + ttl_seconds)
        return token.text.decode("ascii")

    def revoke(self, token: str) -> bool:
        """Ends a token; whether it was live. From here on no check finds it active. Raises MalformedTokenError."""
        with self._lock:
            found = self._find(token)
            if found is None or found.revoked:
                return False
            found.revoked = True
            self._changes.append(found.identity.token_id)
            for listener in self._listeners:
                listener(len(self._changes), found.identity.token_id)
            return True

    def still(self) -> AbstractContextManager[object]:
        """Inside nothing is revoked."""
        return self._lock

    @property
    def position(self) -> int:
        """How many tokens were revoked."""
        return len(self._changes)

    def listen(self, listener: Callable[[int, str], None]) -> Callable[[], None]:
        """Has `listener` called with the position and the token's id at each revocation, before any check can see it.
        Gives what ends that.
        """
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def changes_after(self, position: int) -> list[tuple[int, str]]:
        """What was revoked after `position`, with the position of each."""
        return list(enumerate(self._changes, start=1))[position:]

    def remaining_seconds(self, token_id: str) -> float:
        """Until the token ends; 0 if it is unknown or has ended."""
        with self._lock:
            found = self._issued.get(parse_token_id(token_id))
            return 0.0 if found is None or found.revoked else max(0.0, found.ends_at - self._clock())

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
            if found is None or found.revoked or self._clock() >= found.ends_at:
                return Inactive()
        identity = found.identity
        # As scopes: `*` reaches everything but Watchword, which has to be written out.
        if audience not in identity.audiences and ("*" not in identity.audiences or audience == RESERVED):
            return Inactive()
        missing = missing_scopes(identity.scopes, required_scopes)
        return Insufficient(identity, tuple(missing)) if missing else Active(identity)

    def raise_if_unavailable(self) -> None:
        """Raises VerifierUnavailableError during an outage."""
        with self._lock:
            if self._outages:
                raise VerifierUnavailableError("UNAVAILABLE")

    def _find(self, token: str) -> _Issued | None:
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
