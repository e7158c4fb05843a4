"""Where fuzzing begins: inputs near every edge of the rules, and those that once were a mistake.

Tokens are put together here and not written out: nobody's scanner has to wonder whether they are real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final
from uuid import UUID

from watchword.token import ParsedToken, new_token

_IDS: Final = (
    UUID("019e0000-0000-8000-8000-000000000000"),
    UUID("ffffffff-ffff-8fff-bfff-ffffffffffff"),
    UUID("00000000-0000-8000-8000-000000000001"),
)


def _tokens() -> list[bytes]:
    good = [new_token(token_id) for token_id in _IDS]
    text = good[0].text
    swapped = bytearray(text)
    swapped[30], swapped[31] = swapped[31] ^ 1, swapped[30]
    return [
        *(token.text for token in good),
        new_token(_IDS[0], "xy_").text,
        new_token(UUID("019e0000-0000-4000-8000-000000000000")).text,
        new_token(UUID("019e0000-0000-8000-0000-000000000000")).text,
        text[:-1],
        text + b"0",
        text.lower(),
        text.replace(b"ww_", b"WW_"),
        bytes(swapped),
        text[:-6] + b"zzzzzz",
        b"ww_" + b"z" * 61,
        b"ww_" + b"0" * 61,
        b" " + text[:-1],
        text[:40] + b"\x00" + text[41:],
        b"ww_" + "é".encode() * 30 + b"0",
        b"",
        b"ww_",
        *_secrets_of_other_alphabets(good[0]),
    ]


def _secrets_of_other_alphabets(token: ParsedToken) -> list[bytes]:
    """With checksums that fit: only the alphabet is wrong."""
    import zlib

    digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    made = []
    for odd in (b"-", b"_", b"\xc3\xa9", b"\xb2", b" "):
        body = (token.text[:-6])[: -len(odd)] + odd
        checksum, tail = zlib.crc32(body), b""
        for _ in range(6):
            checksum, digit = divmod(checksum, 62)
            tail = digits[digit : digit + 1] + tail
        made.append(body + tail)
    return made


SEEDS: Final[Mapping[str, Sequence[bytes]]] = MappingProxyType(
    {
        "token": _tokens(),
        "metadata": [
            b"authorization\x00Bearer abc",
            b"authorization\x00bEaReR abc",
            b"authorization\x00Bearer  abc",
            b"authorization\x00Bearer abc ",
            b"authorization\x00Bearer ",
            b"authorization\x00Bearer",
            b"authorization\x00Basic abc",
            b"authorization\x00Bearer a,b",
            b"authorization\x00,Bearer a",
            b"authorization\x00Bearer a\x00authorization\x00Bearer b",
            b"authorization\x00Bearer a\x00authorization\x00",
            b"authorization-bin\x00Bearer a",
            b"Authorization\x00Bearer a",
            b"user-agent\x00x\x00authorization\x00Bearer a\x00te\x00trailers",
            "authorization\x00Bearer ä".encode(),
            b"authorization\x00Bearer \x1b[31m",
            b"authorization\x00Bearer\ta",
            b"",
        ],
        "scope": [
            b"orders.read\x00orders.read",
            b"orders.*\x00orders.read",
            b"orders.*\x00orders",
            b"orders.*\x00orders.*",
            b"orders.*\x00orders.a.*",
            b"orders.a.*\x00orders.*",
            b"*\x00orders",
            b"*\x00*",
            b"*\x00watchword",
            b"*\x00watchword.read",
            b"*\x00watchword.*",
            b"*\x00watchwords",
            b"watchword.*\x00watchword.read",
            b"orders*\x00orders1",
            b"orders.*.read\x00orders.a.read",
            b"a..b\x00a..b",
            b".\x00.",
            b"Orders.read\x00orders.read",
            b"a" * 128 + b"\x00" + b"a" * 129,
            "ordеrs.read\x00orders.read".encode(),
        ],
        "network": [
            b"10.1.0.0/16\x0010.1.2.3",
            b"10.1.0.0/16\x0010.2.0.0",
            b"10.1.2.3/16\x0010.1.2.3",
            b"10.1.2.3/32\x0010.1.2.3",
            b"0.0.0.0/0\x00255.255.255.255",
            b"0.0.0.0/0\x00::1",
            b"::/0\x0010.0.0.1",
            b"::/0\x00::ffff:10.0.0.1",
            b"::ffff:10.0.0.0/104\x0010.9.9.9",
            b"::ffff:0:0/96\x001.2.3.4",
            b"::ffff:0:0/95\x001.2.3.4",
            b"2001:db8::/32\x002001:db8::1",
            b"2001:db8::1/32\x002001:db8::1",
            b"fe80::/10\x00fe80::1%eth0",
            b"fe80::%eth0/10\x00fe80::1",
            b"10.0.0.0\x0010.0.0.0",
            b"10.0.0.0/255.0.0.0\x0010.1.1.1",
            b"10.0.0.0/33\x0010.0.0.0",
            b"10.0.0.0/-1\x0010.0.0.0",
            b"10.0.0.0/08\x0010.0.0.0",
            b"010.0.0.0/8\x0010.0.0.0",
            "10.0.0.0/８\x0010.0.0.0".encode(),
            b"/8\x00",
        ],
        "peer": [
            b"ipv4:10.0.0.1:443\x00192.0.2.1",
            b"ipv4:10.0.0.1:443\x00192.0.2.1, 10.0.0.2",
            b"ipv4:10.0.0.1:443\x001.1.1.1, 192.0.2.1\x0010.0.0.3",
            b"ipv4:10.0.0.1:443\x00junk",
            b"ipv4:10.0.0.1:443\x00192.0.2.1,",
            b"ipv4:10.0.0.1:443",
            b"ipv4:192.0.2.7:443\x0010.0.0.1",
            b"ipv6:%5Bfd00::1%5D:443\x00[2001:db8::1]:80",
            b"ipv6:[::1]:5",
            b"ipv6:::1",
            b"ipv6:[::ffff:10.0.0.1]:5\x00192.0.2.1",
            b"ipv6:[fe80::1%25eth0]:5",
            b"ipv4:10.0.0.1",
            b"ipv4:10.0.0.1:443\x00192.0.2.1:8080",
            b"unix:",
            b"unix:/run/x\x00192.0.2.1",
            b"ipv4:%31.2.3.4:5",
            b"",
        ],
    }
)
