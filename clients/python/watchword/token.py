"""The token format: 64 characters that carry an id to look up, a secret to prove, and a checksum to spare the lookup.

    ww_ | 22 characters id | 33 characters secret | 6 characters checksum

The id is a UUIDv8 (RFC 9562 section 5.8) whose first 48 bits are the hard end of the token's life in unix milliseconds.
The checksum is CRC-32 over everything before it: typing errors and garbage end here, before any I/O, and a scanner that
finds 64 such characters in a log has found a token.
"""

from __future__ import annotations

import re
import secrets
from binascii import crc32
from dataclasses import dataclass, field
from typing import Final
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
_PAIR_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_PAIR_BASE: Final = 62 * 62
_UUID_MAX: Final = (1 << 128) - 1
_VERSION_8: Final = 0x8 << 76
_VARIANT: Final = 0b10 << 62
_FIXED_MASK: Final = (0xF << 76) | (0b11 << 62)
_EXPIRY_MS_MAX: Final = (1 << 48) - 1


class MalformedTokenError(ValueError):
    """The text is not a token: wrong length, prefix, alphabet, checksum or id. Never repeats the text."""


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A well-formed token, taken apart. Says nothing about whether it was ever issued."""

    token_id: UUID
    text: bytes = field(repr=False)
    """The whole token, as the digest is computed over it. A secret: kept out of `repr`."""


def _encode(number: int, length: int) -> str:
    pairs: list[str] = []
    for _ in range((length + 1) // 2):
        number, pair = divmod(number, _PAIR_BASE)
        pairs.append(_PAIRS[pair])
    pairs.reverse()
    return "".join(pairs)[-length:]


def _decode_even(text: str) -> int:
    number = 0
    for at in range(0, len(text), 2):
        number = number * _PAIR_BASE + _PAIR_VALUES[text[at : at + 2]]
    return number


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
    return UUID(int=(expires_at_ms << 80) | random | _VERSION_8 | _VARIANT)


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

    Raises MalformedTokenError. Costs no I/O and about three microseconds, so junk is refused at wire speed.
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
    body = raw[:-CHECKSUM_LENGTH]
    # The checksum is no secret and proves nothing, so an ordinary comparison serves.
    if raw[-CHECKSUM_LENGTH:] != _checksum(body).encode("ascii"):
        raise MalformedTokenError("wrong checksum")
    whole = raw.decode("ascii", "replace")
    if not whole.startswith(prefix):
        raise MalformedTokenError("wrong prefix")
    if not whole[head:].isalnum():
        raise MalformedTokenError("wrong alphabet")
    return ParsedToken(parse_token_id(whole[head : head + ID_LENGTH]), raw)


def format_token_id(token_id: UUID) -> str:
    """The id as 22 characters of base62: how it is shown, logged and stands in a token."""
    return _encode(token_id.int, ID_LENGTH)


def parse_token_id(text: str) -> UUID:
    """Reads what format_token_id writes. Raises MalformedTokenError."""
    if len(text) != ID_LENGTH:
        raise MalformedTokenError("a token id has 22 characters")
    try:
        number = _decode_even(text)
    except KeyError:
        raise MalformedTokenError("wrong alphabet") from None
    if number > _UUID_MAX or number & _FIXED_MASK != _VERSION_8 | _VARIANT:
        raise MalformedTokenError("not a token id")
    return UUID(int=number)


def _checksum(body: bytes) -> str:
    return _encode(crc32(body), CHECKSUM_LENGTH)


def token_pattern(prefix: str = PREFIX_DEFAULT) -> re.Pattern[str]:
    """Finds whole tokens in text, for masking and scanning. Check a hit with parse_token: the checksum decides."""
    return re.compile(re.escape(prefix) + r"[0-9A-Za-z]{" + str(BODY_LENGTH) + r"}")
