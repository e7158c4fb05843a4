"""The bearer token of a call, out of its metadata: exactly one, or a refusal (RFC 6750 section 2.1).

Every call to every protected service passes here, so there is one pass, no dict and no regular expression. A dict would
also be wrong: of two `authorization` entries it keeps one, and the next party to look may keep the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "Bearer "
"""As nearly everybody writes it."""
_SCHEME_LENGTH: Final = len(_SCHEME)

BearerReason = Literal["TOKEN_MISSING", "TOKEN_MALFORMED", "TOKEN_AMBIGUOUS"]

_SENTENCES: Final[dict[BearerReason, str]] = {
    "TOKEN_MISSING": "the call carries no bearer token",
    "TOKEN_MALFORMED": "the authorization entry is not 'Bearer', one space and a token",
    "TOKEN_AMBIGUOUS": "the call carries more than one authorization entry",
}


class BearerError(Exception):
    """The metadata holds no usable bearer token. Never repeats what it found: it may be a secret, mistyped."""

    def __init__(self, reason: BearerReason) -> None:
        super().__init__(_SENTENCES[reason])
        self.reason: Final[BearerReason] = reason


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token after `Bearer `, from the metadata's (key, value) pairs as gRPC gives them (keys in lower case).

    The scheme is matched in any case (RFC 9110 section 11.1); exactly one space follows it. The token is not judged:
    that is parse_token's. Raises BearerError: TOKEN_MISSING without an `authorization` entry, TOKEN_AMBIGUOUS for more
    than one, also when an intermediary joined them with a comma (RFC 9110 section 5.3), TOKEN_MALFORMED for all else.
    """
    found: str | bytes | None = None
    for key, value in metadata:
        if key == AUTHORIZATION:
            if found is not None:
                raise BearerError("TOKEN_AMBIGUOUS")
            found = value
    if found is None:
        raise BearerError("TOKEN_MISSING")
    if not isinstance(found, str):
        raise BearerError("TOKEN_MALFORMED")
    scheme, token = found[:_SCHEME_LENGTH], found[_SCHEME_LENGTH:]
    if "," in found:
        raise BearerError("TOKEN_AMBIGUOUS")
    if (
        not token
        or (scheme != _SCHEME and scheme.lower() != _SCHEME.lower())
        or " " in token
        or not token.isascii()
        or not token.isprintable()
    ):
        raise BearerError("TOKEN_MALFORMED")
    return token
