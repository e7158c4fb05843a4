"""Where a call comes from, and with which certificate: what bound tokens are compared with.

Both are the connection's, so they are looked up once for a call, and only for a call that asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from watchword.network import TrustedProxies, certificate_sha256
from watchword.verifier.contract import BoundCounter, PeerName
from watchword.verifier.verdict import Active, Bound, Inactive, Insufficient

# A service has as many callers with certificates as connections; few of them change at a time.
_CERTIFICATES_MAX: Final = 256
_CERTIFICATE: Final = "x509_pem_cert"


@dataclass(frozen=True, slots=True)
class Origin:
    """One call's. What is not known for certain is empty, and matches no binding."""

    address: str = ""
    certificate_sha256: bytes = b""


class Origins:
    """How one interceptor tells where calls come from, and what it makes of bound tokens.

    Contexts are those of either stack. Raises NetworkError for a proxy that is no network.
    """

    __slots__ = ("_counter", "_is_direct", "_proxies", "_sha256")

    def __init__(self, trusted_proxies: Iterable[str], verifier: object) -> None:
        proxies = tuple(trusted_proxies)
        self._is_direct: Final = not proxies
        self._proxies: Final = TrustedProxies(proxies)
        self._counter: Final = verifier if isinstance(verifier, BoundCounter) else None
        self._sha256: Final = lru_cache(_CERTIFICATES_MAX)(certificate_sha256)

    def peer(self, context: Any) -> PeerName:
        """The caller for a verifier: the connection's peer, or whom a trusted proxy names."""
        peer: Callable[[], str] = context.peer
        return peer if self._is_direct else lambda: _peer_of(self._address(context))

    def resolve(
        self, bound: Bound, required_scopes: tuple[str, ...], origin: Origin
    ) -> Active | Insufficient | Inactive:
        """What a bound token is worth to a call. One that does not match is told what the caller of any token that is
        not active is told.
        """
        matches = bound.bindings.match(origin.address, origin.certificate_sha256)
        # One that matches and lacks scopes is neither admitted nor refused for where it comes from.
        if self._counter is not None and not (matches and isinstance(bound.verdict, Insufficient)):
            self._counter.count_bound(bound, required_scopes, origin.address, is_admitted=matches)
        return bound.verdict if matches else Inactive()

    def of(self, context: Any) -> Origin:
        """Where a call comes from. Never raises: what fails to be found out is not known."""
        try:
            return Origin(self._address(context), self._certificate_sha256(context))
        except Exception:
            return Origin()

    def _address(self, context: Any) -> str:
        return self._proxies.address(context.peer(), context.invocation_metadata() or ())

    def _certificate_sha256(self, context: Any) -> bytes:
        # gRPC gives what the handshake proved. A server that does not ask for certificates has none to give.
        certificates = list(context.auth_context().get(_CERTIFICATE, ()))
        return self._sha256(certificates[0]) if len(certificates) == 1 else b""


def _peer_of(address: str) -> str:
    if not address:
        return ""
    return f"ipv6:[{address}]:0" if ":" in address else f"ipv4:{address}:0"
