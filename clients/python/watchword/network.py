"""Where a call comes from: addresses, the networks that hold them, and client certificates. Standard library, no I/O.

An address that cannot be known for certain is the empty string, and no network holds that: doubt denies.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import unquote

_FORWARDED_FOR: Final = "x-forwarded-for"
_MAPPED_BITS: Final = 96  # ::ffff:0:0/96 is IPv4 in IPv6's clothes
_HOST_AND_PORT: Final = re.compile(r"\[(?P<bracketed>[^]]*)\](?::[0-9]+)?|(?P<plain>[^:]*):[0-9]+", re.ASCII)
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class NetworkError(ValueError):
    """The text is not a network. Its message says what is wrong with it."""


def canonical_network(text: str) -> str:
    """A CIDR prefix in the one form in which it is stored: `10.1.0.0/16`, `2001:db8::/32`.

    A network of IPv4-mapped addresses becomes the IPv4 network that it is.

    Raises:
        NetworkError: it is no prefix, has bits beyond its length, or names a zone.
    """
    return str(_network(text))


class Networks:
    """A few networks, asked whether one of them holds an address. Equal if they are the same, in the same order."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Each as `canonical_network` takes it. Raises NetworkError."""
        self._networks = tuple(map(_network, networks))

    def __len__(self) -> int:
        return len(self._networks)

    def __eq__(self, other: object) -> bool:
        return self._networks == other._networks if isinstance(other, Networks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._networks)

    def __repr__(self) -> str:
        return f"Networks({[str(network) for network in self._networks]})"

    def hold(self, address: str) -> bool:
        """False for what is no address. An IPv4-mapped IPv6 address counts as IPv4; a zone is not looked at."""
        parsed = _address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


class TrustedProxies:
    """Whose word is taken for where a call comes from.

    Name the proxies and nothing else: a caller inside these networks that comes without a proxy has no address.
    """

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        """The proxies' networks, each as `canonical_network` takes it. Raises NetworkError."""
        self._networks = Networks(networks)

    def address(self, peer: str, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """The caller's address, or the empty string where it cannot be known.

        It is the connection's, unless that is a proxy's. Then it is the last entry of `x-forwarded-for` that is not a
        proxy's: a proxy appends whom it saw, and what stands before is anybody's invention
        (tests/client/test_network.py::test_what_stands_before_the_last_untrusted_address_is_never_believed).

        Args:
            peer: as gRPC's `context.peer()` gives it.
            metadata: the call's. Several entries of the header count as one list, in their order.
        """
        address = address_of_peer(peer)
        if not self._networks.hold(address):
            return address
        header = ",".join(_text(value) for key, value in metadata if key == _FORWARDED_FOR)
        for entry in reversed(header.split(",")):
            parsed = _address(_host(entry.strip(" \t")))
            if parsed is None:
                return ""
            address = str(parsed)
            if not self._networks.hold(address):
                return address
        return ""


def canonical_address(text: str) -> str:
    """An address in the one form in which it is stored; the empty string for what is none.

    Without a zone; an IPv4-mapped address as IPv4.
    """
    parsed = _address(text)
    return "" if parsed is None else str(parsed)


def address_of_peer(peer: str) -> str:
    """The address in what gRPC's `peer()` gives: `ipv4:192.0.2.1:5` is `192.0.2.1`, `ipv6:%5B::1%5D:5` is `::1`.

    Without port or zone; an IPv4-mapped address as IPv4. The empty string for Unix sockets and whatever else has none.
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    return canonical_address(_host(unquote(rest)))


def certificate_sha256(pem: bytes) -> bytes:
    """The SHA-256 of the first certificate in `pem`, in its DER form: RFC 8705's `x5t#S256` before it is encoded.

    Raises:
        ValueError: there is no certificate in it.
    """
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise ValueError("there is no PEM certificate in it")
    der = base64.b64decode(b"".join(found[1].split()), validate=True)
    if not der:
        raise ValueError("the PEM certificate is empty")
    return hashlib.sha256(der).digest()


# A token's are read with each answer about it, and parsing one costs as much as the rest of a verdict.
@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network:
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        raise NetworkError(f"{text!r} is not a network: write 10.1.0.0/16 or 2001:db8::/32")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise NetworkError(f"{text!r} is not a network: write 10.1.0.0/16 or 2001:db8::/32") from None
    if ip_address(address) != network.network_address:
        raise NetworkError(f"{text!r} has bits set beyond its prefix: did you mean {network}?")
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, IPv4Address):
        return parsed
    # Zones mean something on one host only; without one, equal addresses are equal.
    return parsed.ipv4_mapped or IPv6Address(int(parsed))


def _host(text: str) -> str:
    """What stands before a port, where there is one."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        return text
    return found["plain"] if found["bracketed"] is None else found["bracketed"]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
