"""Where a call comes from, for callers of Watchword whose own tokens are bound."""

from __future__ import annotations

from typing import Any, Final

from watchword.network import TrustedProxies, certificate_sha256
from watchword_server.rules.verdicts import Evidence

_CERTIFICATE: Final = "x509_pem_cert"


def address_of(context: Any, proxies: TrustedProxies) -> str:
    """Where a call comes from; empty where that cannot be known."""
    return proxies.address(context.peer(), context.invocation_metadata() or ())


def evidence_of(context: Any, proxies: TrustedProxies) -> Evidence:
    """The address and the client certificate of a call. What cannot be known is empty, and matches no binding."""
    certificates = list(context.auth_context().get(_CERTIFICATE, ()))
    try:
        digest = certificate_sha256(certificates[0]) if certificates else b""
    except ValueError:
        digest = b""
    return Evidence(address_of(context, proxies), digest)
