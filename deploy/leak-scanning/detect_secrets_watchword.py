"""Finds Watchword tokens with detect-secrets, by prefix and checksum:

    detect-secrets scan --plugin deploy/leak-scanning/detect_secrets_watchword.py

It stands alone, so that it can be copied to where detect-secrets runs, and needs nothing of Watchword.
"""

from __future__ import annotations

import re
import string
from binascii import crc32
from collections.abc import Generator
from typing import Final

from detect_secrets.plugins.base import RegexBasedDetector

# That of your deployment, if WATCHWORD_TOKEN_PREFIX is set there.
PREFIX: Final = "ww_"

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM_LENGTH: Final = 6


class WatchwordTokenDetector(RegexBasedDetector):
    """Whole tokens: the prefix, 61 letters and digits, the last six of which are a checksum of all before them."""

    secret_type = "Watchword Token"  # noqa: S105  # what it is called, not what it is
    denylist = (re.compile(re.escape(PREFIX) + "[0-9A-Za-z]{61}"),)

    def analyze_string(self, string: str) -> Generator[str, None, None]:
        """The tokens in `string`."""
        for text in super().analyze_string(string):
            if _checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:]:
                yield text


def _checksum(body: str) -> str:
    """CRC-32 in base62, most significant digit first."""
    number = crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
