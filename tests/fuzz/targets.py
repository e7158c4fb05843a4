"""What is fuzzed: each target takes any bytes, and fails where the code and a plain reading of the rules differ.

The references are written from the documents and share no code with what they judge: sums one digit at a time, prefixes
bit by bit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from watchword.bearer import BearerError, bearer_token
from watchword.network import NetworkError, Networks, TrustedProxies, address_of_peer, canonical_network
from watchword.scope import covers, is_scope, is_scope_pattern, missing_scopes
from watchword.token import (
    ID_LENGTH,
    PREFIX_DEFAULT,
    MalformedTokenError,
    ParsedToken,
    format_token_id,
    parse_token,
    parse_token_id,
)
from watchword_server.rules.grants import name_covers

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SEPARATOR: Final = b"\x00"


def token(data: bytes) -> None:
    """parse_token and parse_token_id, from bytes and from text."""
    text = data.decode("utf-8", "surrogateescape")
    as_bytes, as_text = _parsed(data), _parsed(text)
    expected = _is_token(data)
    assert (as_bytes is not None) == expected
    assert (as_text is not None) == (expected and text.isascii())
    if as_bytes is None:
        return
    assert as_bytes.text == data
    assert as_bytes.token_id.version == 8
    assert format_token_id(as_bytes.token_id) == as_bytes.id_text
    assert parse_token_id(as_bytes.id_text) == as_bytes.token_id
    # What is safe to log is not the secret.
    assert as_bytes.text.decode("ascii") not in repr(as_bytes)


def metadata(data: bytes) -> None:
    """bearer_token: pairs of key and value, separated by zero bytes. The value of a key in `-bin` stays bytes."""
    parts = data.split(_SEPARATOR)
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in zip(parts[::2], parts[1::2], strict=False):
        binary = key.endswith(b"-bin")
        pairs.append((key.decode("latin-1"), value if binary else value.decode("utf-8", "replace")))
    found = [value for key, value in pairs if key == "authorization"]
    refusal: BearerError | None = None
    try:
        given = bearer_token(pairs)
    except BearerError as error:
        refusal = error
    if refusal is not None:
        assert (refusal.reason == "TOKEN_MISSING") == (not found)
        assert len(found) < 2 or refusal.reason == "TOKEN_AMBIGUOUS"
        # Whatever was found may be a secret, mistyped: what is said is the same for all.
        assert str(refusal) == str(BearerError(refusal.reason))
        assert not (len(found) == 1 and isinstance(found[0], str) and _BEARER.fullmatch(found[0]))
        return
    assert len(found) == 1
    assert isinstance(found[0], str)
    matched = _BEARER.fullmatch(found[0])
    assert matched is not None
    assert given == matched[1]


def scope(data: bytes) -> None:
    """covers, missing_scopes and name_covers for two words, separated by a zero byte."""
    held, _, wanted = data.decode("utf-8", "surrogateescape").partition("\x00")
    assert is_scope(held) == (len(held) <= 128 and all(map(_is_segment, held.split("."))))
    if is_scope_pattern(held):
        *above, last = held.split(".")
        assert all(map(_is_segment, above))
        assert last == "*" or _is_segment(last)
    if is_scope_pattern(held) and is_scope_pattern(wanted):
        assert covers(held, wanted) == _covers(held, wanted)
    if is_scope_pattern(held) and is_scope(wanted):
        assert (missing_scopes([held], [wanted]) == []) == _covers(held, wanted)
    # A wildcard never reaches what is Watchword's own.
    if held != wanted and wanted.split(".")[0] == "watchword" and not held.startswith("watchword"):
        assert not covers(held, wanted)
    assert not (held == "*" and wanted == "watchword" and name_covers(held, wanted))


def network(data: bytes) -> None:
    """canonical_network and Networks for a network and an address, separated by a zero byte."""
    text, _, address = data.decode("utf-8", "surrogateescape").partition("\x00")
    try:
        canonical = canonical_network(text)
    except NetworkError:
        return
    assert canonical_network(canonical) == canonical
    prefix, _, length = canonical.partition("/")
    base = ip_address(prefix)
    held = Networks([text]).hold(address)
    assert held == Networks([canonical]).hold(address)
    try:
        asked = ip_address(address)
    except ValueError:
        assert not held
        return
    mapped = getattr(asked, "ipv4_mapped", None)
    if mapped is not None:
        asked = mapped
    same = asked.version == base.version and _bits(asked.packed)[: int(length)] == _bits(base.packed)[: int(length)]
    assert held == same


def peer(data: bytes) -> None:
    """address_of_peer and TrustedProxies for a peer and `x-forwarded-for` entries, separated by zero bytes."""
    name, *entries = data.decode("utf-8", "surrogateescape").split("\x00")
    address = address_of_peer(name)
    assert address == "" or str(ip_address(address)) == address
    proxies = Networks(["10.0.0.0/8", "fd00::/8"])
    forwarded = TrustedProxies(["10.0.0.0/8", "fd00::/8"]).address(
        name, [("x-forwarded-for", entry) for entry in entries]
    )
    if not proxies.hold(address):
        # Nobody but a proxy is believed about where a call comes from.
        assert forwarded == address
    else:
        assert forwarded == "" or (str(ip_address(forwarded)) == forwarded and not proxies.hold(forwarded))


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = MappingProxyType(
    {target.__name__: target for target in (token, metadata, scope, network, peer)}
)

_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([!-+\--~]+)")
_SEGMENT: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


def _parsed(text: bytes | str) -> ParsedToken | None:
    try:
        return parse_token(text)
    except MalformedTokenError:
        return None


def _is_token(data: bytes) -> bool:
    text = data.decode("latin-1")
    if len(text) != 64 or not text.startswith(PREFIX_DEFAULT) or any(one not in _DIGITS for one in text[3:]):
        return False
    number = 0
    for digit in text[3 : 3 + ID_LENGTH]:
        number = number * 62 + _DIGITS.index(digit)
    checksum = 0
    for digit in text[-6:]:
        checksum = checksum * 62 + _DIGITS.index(digit)
    bits = f"{number:0128b}"
    return len(bits) == 128 and bits[48:52] == "1000" and bits[64:66] == "10" and zlib.crc32(data[:-6]) == checksum


def _is_segment(text: str) -> bool:
    return text != "" and _SEGMENT.issuperset(text)


def _covers(held: str, wanted: str) -> bool:
    if held == wanted:
        return True
    above, segments = held.split("."), wanted.split(".")
    if above[-1] != "*":
        return False
    if above == ["*"]:
        return segments[0] != "watchword"
    return len(segments) >= len(above) and segments[: len(above) - 1] == above[:-1]


def _bits(packed: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in packed)
