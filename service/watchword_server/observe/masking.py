"""Takes secrets out of text that is about to leave the process. The last line of defence: nothing should get here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from watchword.token import BODY_LENGTH, ID_LENGTH, PREFIX_DEFAULT

MASK: Final = "[masked]"
_LITERAL_LENGTH_MIN: Final = 6
"""A shorter secret would turn up in ordinary words."""
_FOREIGN_TOKEN: Final = re.compile(r"\b[a-z][a-z0-9]{0,14}_[0-9A-Za-z]{" + str(BODY_LENGTH) + r",}")
# Up to the last @ of the word: a password may itself hold one.
_URL_PASSWORD: Final = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s\"']*@", re.IGNORECASE)
_NAMED_PASSWORD: Final = re.compile(
    r"(?P<head>\b(?:password|passwd|sslpassword)\\*[\"']?\s*[=:]\s*(?P<open>\\*[\"'])?)"
    # Quoted, up to the same quote (which in JSON within JSON is an escaped one); bare, up to the end of the word.
    r"(?(open).*?(?=(?P=open))|[^\s&,;}\"'\\]+)",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(?P<head>\bbearer\s+)[0-9A-Za-z._~+/=-]{8,}", re.IGNORECASE)


class Masker:
    """Masks tokens (any prefix; of ours also pieces that reach into the secret half), passwords in connection strings,
    bearer credentials, and the very secrets it was told of. A token's public half stays, for whoever has to find it.
    """

    def __init__(self, *, token_prefix: str = PREFIX_DEFAULT, secrets: Iterable[str] = ()) -> None:
        prefix = re.escape(token_prefix)
        # Not into the next token's prefix: of two that touch, the second would no longer be recognised.
        self._own = re.compile(f"(?P<head>{prefix}[0-9A-Za-z]{{{ID_LENGTH}}})(?:(?!{prefix})[0-9A-Za-z])+")
        literals = {form for secret in secrets for form in _spellings(secret) if len(form) >= _LITERAL_LENGTH_MIN}
        # The longest first, or a secret that contains another would be masked in part.
        ordered = sorted(literals, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        text = self._own.sub(rf"\g<head>{MASK}", text)
        text = _FOREIGN_TOKEN.sub(MASK, text)
        text = _URL_PASSWORD.sub(rf"\g<head>{MASK}@", text)
        text = _NAMED_PASSWORD.sub(rf"\g<head>{MASK}", text)
        return _BEARER.sub(rf"\g<head>{MASK}", text)


def url_secrets(url: str) -> list[str]:
    """The password within a connection URL, for `Masker(secrets=...)`."""
    password = urlsplit(url).password
    return [] if password is None else [password]


def _spellings(secret: str) -> set[str]:
    """A secret as it is, as a URL carries it, and as JSON and `repr` would show it."""
    plain = unquote(secret)
    return {secret, plain, quote(plain, safe=""), repr(plain)[1:-1], plain.replace("\\", "\\\\").replace('"', '\\"')}
