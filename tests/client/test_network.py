"""Where a call comes from: nothing a caller writes moves it into a network that it is not in."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from urllib.parse import quote

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from watchword.network import (
    NetworkError,
    Networks,
    TrustedProxies,
    address_of_peer,
    canonical_network,
    certificate_sha256,
)

v4 = st.ip_addresses(v=4).map(str)
# Without the IPv4-mapped ones, which are IPv4 here.
v6 = st.ip_addresses(v=6).filter(lambda address: IPv6Address(int(address)).ipv4_mapped is None).map(str)
ports = st.integers(0, 65535)
outside = st.ip_addresses(network="203.0.113.0/24").map(str)
proxies = st.ip_addresses(network="10.1.0.0/16").map(str)
junk = st.text(st.characters(codec="ascii", exclude_characters=","), max_size=40)

CALLER, PROXY = "203.0.113.7", "ipv4:10.1.2.3:4711"


@st.composite
def networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    if draw(st.booleans()):
        return IPv4Network((draw(st.ip_addresses(v=4)), draw(st.integers(0, 32))), strict=False)
    return IPv6Network((draw(st.ip_addresses(v=6)), draw(st.integers(0, 128))), strict=False)


# What is a network


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("192.0.2.7/32", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("::1/128", "::1/128"),
        # IPv4 in IPv6's clothes is IPv4, here as in addresses: as IPv6 it would never hold anything.
        ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_a_network_has_one_form(text: str, canonical: str) -> None:
    assert canonical_network(text) == canonical
    assert canonical_network(canonical) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "10.1.0.0",
        "2001:db8::",
        "10.1.0.0/",
        "10.1.0.0/33",
        "10.1.0.0/-1",
        "10.1.0.0/+8",
        "10.1.0.0/16/16",
        "10.1.0.0/255.255.0.0",
        "10.1.0.0/0.0.255.255",
        "10.1/16",
        "010.1.0.0/16",
        "10.1.0.0 /16",
        " 10.1.0.0/16",
        "10.1.0.0/16\n",
        "10.1.0.0/١٦",
        "١٠.1.0.0/16",
        "2001:db8::/129",
        "fe80::%eth0/64",
        "fe80::/64%eth0",
        "example.com/16",
        "*",
    ],
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(NetworkError, match=r"is not a network: write 10\.1\.0\.0/16"):
        canonical_network(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("10.1.2.3/16", "10.1.0.0/16"), ("2001:db8::1/32", "2001:db8::/32"), ("::1/0", "::/0")],
)
def test_bits_beyond_the_prefix_are_refused_with_what_was_meant(text: str, meant: str) -> None:
    """A typing error in a list of who may come in is not ours to guess."""
    with pytest.raises(NetworkError, match=f"has bits set beyond its prefix: did you mean {meant}"):
        canonical_network(text)


@given(networks())
def test_every_network_can_be_written_and_read(network: IPv4Network | IPv6Network) -> None:
    canonical = canonical_network(str(network))
    assert canonical_network(canonical) == canonical
    assert Networks([canonical]).hold(str(network[0]))


@given(st.text(max_size=60))
def test_a_text_is_a_network_or_an_error(text: str) -> None:
    with contextlib.suppress(NetworkError):
        assert ip_network(canonical_network(text), strict=True)


# What a network holds


@given(networks(), v4)
def test_a_network_holds_what_the_standard_library_says(network: IPv4Network | IPv6Network, address: str) -> None:
    held = Networks([canonical_network(str(network))])
    canonical = ip_network(canonical_network(str(network)))
    expected = isinstance(canonical, IPv4Network) and IPv4Address(address) in canonical
    assert held.hold(address) is expected
    assert held.hold(f"::ffff:{address}") is expected


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("10.0.255.255", False),
        ("10.1.0.0", True),
        ("10.1.255.255", True),
        ("10.2.0.0", False),
        ("::ffff:10.1.0.1", True),
        ("::ffff:a01:1", True),
        ("::ffff:10.2.0.1", False),
        # Other ways to put an IPv4 address into an IPv6 one are IPv6.
        ("::10.1.0.1", False),
        ("64:ff9b::10.1.0.1", False),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", True),
        ("2001:db9::", False),
        ("fe80::1", True),
        ("fe80::1%eth0", True),
        ("fe81::1", False),
        ("", False),
        ("localhost", False),
        ("10.1.0.1:80", False),
        ("10.1.0.0/16", False),
        ("10.1.0.1%eth0", False),
        ("167837697", False),
        (" 10.1.0.1", False),
        ("10.1.0.1\x00", False),
    ],
)
def test_a_network_holds_addresses_within_its_bounds(address: str, held: bool) -> None:
    assert Networks(["10.1.0.0/16", "2001:db8::/32", "fe80::/64"]).hold(address) is held


def test_no_networks_hold_nothing() -> None:
    assert not Networks([]).hold("10.1.0.1")


def test_networks_are_made_of_networks_only() -> None:
    with pytest.raises(NetworkError):
        Networks(["10.1.0.0/16", "10.1.2.3"])
    with pytest.raises(NetworkError):
        TrustedProxies(["10.1.2.3/16"])


@given(st.text(max_size=60))
def test_the_whole_internet_holds_no_junk(text: str) -> None:
    if Networks(["0.0.0.0/0", "::/0"]).hold(text):
        assert address_of_peer(f"ipv4:{text}") or address_of_peer(f"ipv6:[{quote(text)}]")


# The address in a peer


@given(v4, ports)
def test_an_ipv4_peer_is_its_address(address: str, port: int) -> None:
    assert address_of_peer(f"ipv4:{address}:{port}") == address


@given(v6, ports)
def test_an_ipv6_peer_is_its_address_encoded_or_not(address: str, port: int) -> None:
    assert address_of_peer(f"ipv6:[{address}]:{port}") == address
    assert address_of_peer(f"ipv6:%5B{address}%5D:{port}") == address
    assert address_of_peer(f"ipv6:{quote(f'[{address}]')}:{port}") == address


@given(v4, ports)
def test_an_ipv4_mapped_peer_is_an_ipv4_address(address: str, port: int) -> None:
    assert address_of_peer(f"ipv6:%5B::ffff:{address}%5D:{port}") == address


@pytest.mark.parametrize(
    "peer",
    [
        "ipv6:[fe80::1%eth0]:5",
        "ipv6:[fe80::1%25eth0]:5",
        "ipv6:%5Bfe80::1%25eth0%5D:5",
        "ipv6:%5Bfe80::1%252%5D:5",
    ],
)
def test_a_zone_is_not_part_of_an_address(peer: str) -> None:
    assert address_of_peer(peer) == "fe80::1"


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "unix:",
        "unix:/run/orders.sock",
        "unix:10.1.0.1:5",
        "unix-abstract:orders",
        "vsock:2:5",
        "ipv4:",
        "ipv4:10.1.0.1:5x",
        "ipv4:10.1.0.1:5:6",
        "ipv4:10.1.0.1,10.1.0.2:5",
        "ipv6:[::1",
        "ipv6:::1]:5",
        "ipv6:[::1]5",
        "ipv6:[[::1]]:5",
        "ipv6:%ff:5",
        "10.1.0.1:5",
        "dns:10.1.0.1:5",
        "IPV4:10.1.0.1:5",
    ],
)
def test_other_peers_have_no_address(peer: str) -> None:
    assert address_of_peer(peer) == ""


@given(st.text(max_size=60))
def test_any_peer_has_an_address_or_none(text: str) -> None:
    for peer in (text, f"ipv4:{text}", f"ipv6:{text}"):
        address = address_of_peer(peer)
        assert not address or Networks(["0.0.0.0/0", "::/0"]).hold(address)


# The address behind a proxy


def forwarded(*values: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", "Bearer x"), *(("x-forwarded-for", value) for value in values)]


TRUSTED = TrustedProxies(["10.1.0.0/16", "2001:db8::/32"])


def test_whoever_is_no_proxy_is_where_the_connection_comes_from() -> None:
    """The header of a stranger is worth nothing."""
    assert TRUSTED.address(f"ipv4:{CALLER}:5", forwarded("198.51.100.1")) == CALLER
    assert TrustedProxies([]).address(PROXY, forwarded("198.51.100.1")) == "10.1.2.3"


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ([CALLER], CALLER),
        ([f"{CALLER}, 10.1.0.9"], CALLER),
        ([f" {CALLER} ,\t10.1.0.9 "], CALLER),
        ([f"10.1.0.8, {CALLER}, 10.1.0.9"], CALLER),
        ([f"{CALLER}:443"], CALLER),
        (["2001:db9::1"], "2001:db9::1"),
        (["[2001:db9::1]"], "2001:db9::1"),
        (["[2001:db9::1]:443"], "2001:db9::1"),
        (["2001:DB9:0::1"], "2001:db9::1"),
        ([f"::ffff:{CALLER}"], CALLER),
        ([f"{CALLER}, ::ffff:10.1.0.9"], CALLER),
        ([f"{CALLER}, 2001:db8::5"], CALLER),
        # Several entries are one list.
        ([CALLER, "10.1.0.9"], CALLER),
        (["198.51.100.1", CALLER], CALLER),
        (["198.51.100.1", CALLER, "10.1.0.8, 10.1.0.9"], CALLER),
        # A proxy that says nothing, or names proxies only, tells of no caller.
        ([], ""),
        ([""], ""),
        (["10.1.0.8"], ""),
        (["10.1.0.8, 10.1.0.9"], ""),
        # Junk where the address should be is no address.
        (["unknown"], ""),
        (["_hidden"], ""),
        ([f"{CALLER}, unknown"], ""),
        ([f"{CALLER},"], ""),
        ([CALLER, ""], ""),
        ([f"{CALLER},,10.1.0.9"], ""),
        ([f"{CALLER} 10.1.0.9"], ""),
        ([f"for={CALLER}"], ""),
        ([f'"{CALLER}"'], ""),
        ([f"{CALLER};10.1.0.9"], ""),
    ],
)
def test_behind_a_proxy_it_is_the_last_address_that_is_no_proxys(values: list[str], address: str) -> None:
    assert TRUSTED.address(PROXY, forwarded(*values)) == address
    assert TRUSTED.address("ipv6:%5B2001:db8::1%5D:5", forwarded(*values)) == address
    assert TRUSTED.address("ipv6:[::ffff:10.1.2.3]:5", forwarded(*values)) == address


@given(st.lists(junk | outside | proxies), outside, st.lists(proxies), st.booleans())
def test_what_stands_before_the_last_untrusted_address_is_never_believed(
    invented: list[str], seen: str, chain: list[str], together: bool
) -> None:
    entries = [*invented, seen, *chain]
    values = [", ".join(entries)] if together else entries
    assert TRUSTED.address(PROXY, forwarded(*values)) == seen


@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_header_gives_an_address_that_is_no_proxys_or_none(values: list[str]) -> None:
    address = TRUSTED.address(PROXY, forwarded(*values))
    assert not address or not Networks(["10.1.0.0/16", "2001:db8::/32"]).hold(address)


def test_a_header_of_bytes_is_text() -> None:
    assert TRUSTED.address(PROXY, [("x-forwarded-for", CALLER.encode())]) == CALLER
    assert TRUSTED.address(PROXY, [("x-forwarded-for", b"\xff\x00")]) == ""


def test_a_unix_socket_is_no_proxy() -> None:
    """Whatever listens there could say anything: a header behind it is not believed."""
    assert TrustedProxies(["0.0.0.0/0", "::/0"]).address("unix:", forwarded(CALLER)) == ""


# Certificates


def test_a_certificate_is_known_by_the_sha256_of_its_der_form() -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("orders.example")
    pem = leaf.cert_chain_pems[0].bytes()
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    assert certificate_sha256(pem) == hashlib.sha256(der).digest()
    # The leaf is the first of its chain, whatever text stands before it.
    chain = b"subject=orders\r\n" + pem.replace(b"\n", b"\r\n") + authority.cert_pem.bytes()
    assert certificate_sha256(chain) == certificate_sha256(pem)
    assert certificate_sha256(authority.cert_pem.bytes()) != certificate_sha256(pem)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"MIIB",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMII*\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIBA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_certificate_has_no_digest(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"PEM|base64|padding|data"):
        certificate_sha256(pem)
