"""The token format: 64 characters that carry an id to look up, a secret to prove, and a checksum to spare the lookup.

    ww_ | 22 characters id | 33 characters secret | 6 characters checksum

The id is a UUIDv8 (RFC 9562 section 5.8) whose first 48 bits are the hard end of the token's life in unix milliseconds.
The checksum is CRC-32 over everything before it: typing errors and garbage end here, before any I/O, and a scanner that
finds 64 such characters in a log has found a token.
"""

from __future__ import annotations

import re
import secrets
import struct
from binascii import crc32
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

PREFIX_DEFAULT: Final = "ww_"
ID_LENGTH: Final = 22
SECRET_LENGTH: Final = 33
CHECKSUM_LENGTH: Final = 6
BODY_LENGTH: Final = ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
SECRET_BYTES: Final = 24

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{0,14}_")
# Two digits a step: half the iterations of the obvious loop, on a path that every call takes.
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_VALUES: Final = {int.from_bytes(pair.encode()): value for value, pair in enumerate(_PAIRS)}
_BASE: Final = 62 * 62
_BASE_2: Final = _BASE**2
_BASE_3: Final = _BASE**3
_BASE_4: Final = _BASE**4
_BASE_7: Final = _BASE**7
_ID: Final = struct.Struct(">11H")
_BODY: Final = struct.Struct(f">11H{SECRET_LENGTH}s3H")
_UUID_MAX: Final = (1 << 128) - 1
_VERSION_8: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_FIXED_MASK: Final = (0xF << 76) | (0b11 << 62)
_FIXED_BITS: Final = _VERSION_8 | _VARIANT
_EXPIRY_MS_MAX: Final = (1 << 48) - 1


class MalformedTokenError(ValueError):
    """The text is not a token: wrong length, prefix, alphabet, checksum or id. Never repeats the text."""


class ParsedToken(NamedTuple):
    """A well-formed token, taken apart. Says nothing about whether it was ever issued."""

    token_id: UUID
    text: bytes
    """The whole token, as the digest is computed over it. A secret: kept out of `repr`."""

    @property
    def id_text(self) -> str:
        """The id as it stands in the token: what format_token_id makes of `token_id`."""
        return self.text[-BODY_LENGTH : ID_LENGTH - BODY_LENGTH].decode("ascii")

    def __repr__(self) -> str:
        return f"ParsedToken(token_id={self.token_id!r})"


def _encode(number: int, length: int) -> str:
    text = ""
    while len(text) < length:
        # Eight digits a step off the long number, the rest of the sums on short ones.
        number, low = divmod(number, _BASE_4)
        high, low = divmod(low, _BASE_2)
        text = _PAIRS[high // _BASE] + _PAIRS[high % _BASE] + _PAIRS[low // _BASE] + _PAIRS[low % _BASE] + text
    return text[-length:]


def check_prefix(prefix: str) -> str:
    """Returns a usable token prefix or raises ValueError: a lower-case word of up to 15 characters and `_`."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("a token prefix is a lower-case ASCII word of 1 to 15 characters followed by '_'")
    return prefix


def new_token_id(expires_at_ms: int) -> UUID:
    """A fresh id for a token that ends no later than `expires_at_ms` (unix milliseconds, 48 bits)."""
    if not 0 <= expires_at_ms <= _EXPIRY_MS_MAX:
        raise ValueError("expires_at_ms does not fit 48 bits")
    random = secrets.randbits(80) & ~_FIXED_MASK
    return UUID(int=(expires_at_ms << 80) | random | _FIXED_BITS)


def expires_at_ms(token_id: UUID) -> int:
    """The hard end that the id carries, in unix milliseconds. The token may end earlier, never later."""
    return token_id.int >> 80


def new_token(token_id: UUID, prefix: str = PREFIX_DEFAULT) -> ParsedToken:
    """Draws a secret of 192 random bits for `token_id` and puts the token together."""
    secret = _encode(secrets.randbits(SECRET_BYTES * 8), SECRET_LENGTH)
    body = prefix + format_token_id(token_id) + secret
    return ParsedToken(token_id, (body + _checksum(body.encode("ascii"))).encode("ascii"))


def parse_token(text: str | bytes, prefix: str = PREFIX_DEFAULT) -> ParsedToken:
    """Takes a token apart.

    Raises MalformedTokenError. Costs no I/O and a few microseconds, so junk is refused at wire speed.
    """
    if isinstance(text, bytes):
        raw = text
    else:
        try:
            raw = text.encode("ascii")
        except UnicodeEncodeError:
            raise MalformedTokenError("a token is ASCII") from None
    head = len(prefix)
    if len(raw) != head + BODY_LENGTH:
        raise MalformedTokenError("wrong length")
    *id_pairs, secret, high, middle, low = _BODY.unpack_from(raw, head)
    try:
        checksum = (_VALUES[high] * _BASE + _VALUES[middle]) * _BASE + _VALUES[low]
        number = _number(id_pairs)
    except KeyError:
        raise MalformedTokenError("wrong alphabet") from None
    # The checksum is no secret and proves nothing, so an ordinary comparison serves.
    if checksum != crc32(raw[:-CHECKSUM_LENGTH]):
        raise MalformedTokenError("wrong checksum")
    if raw[:head] != prefix.encode("ascii"):
        raise MalformedTokenError("wrong prefix")
    if not secret.isalnum():
        raise MalformedTokenError("wrong alphabet")
    return ParsedToken(_token_id(number), raw)


def format_token_id(token_id: UUID) -> str:
    """The id as 22 characters of base62: how it is shown, logged and stands in a token."""
    return _encode(token_id.int, ID_LENGTH)


def parse_token_id(text: str) -> UUID:
    """Reads what format_token_id writes. Raises MalformedTokenError."""
    if len(text) != ID_LENGTH or not text.isascii():
        raise MalformedTokenError("a token id has 22 characters")
    try:
        return _token_id(_number(_ID.unpack(text.encode("ascii"))))
    except KeyError:
        raise MalformedTokenError("wrong alphabet") from None


def _number(pairs: Sequence[int]) -> int:
    """The number that eleven pairs of digits write. In three steps: most of the sums stay small."""
    a, b, c, d, e, f, g, h, i, j, k = pairs
    v, base = _VALUES, _BASE
    return (
        (((v[a] * base + v[b]) * base + v[c]) * base + v[d]) * _BASE_7
        + (((v[e] * base + v[f]) * base + v[g]) * base + v[h]) * _BASE_3
        + (v[i] * base + v[j]) * base
        + v[k]
    )


def _token_id(number: int) -> UUID:
    if number > _UUID_MAX or number & _FIXED_MASK != _FIXED_BITS:
        raise MalformedTokenError("not a token id")
    return UUID(int=number)


def _checksum(body: bytes) -> str:
    return _encode(crc32(body), CHECKSUM_LENGTH)


def token_pattern(prefix: str = PREFIX_DEFAULT) -> re.Pattern[str]:
    """Finds whole tokens in text, for masking and scanning. Check a hit with parse_token: the checksum decides."""
    return re.compile(re.escape(prefix) + r"[0-9A-Za-z]{" + str(BODY_LENGTH) + r"}")
