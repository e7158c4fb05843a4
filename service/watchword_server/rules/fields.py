"""What a request may contain. Every fault is found and named at once, with the field it is in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final

from watchword.network import NetworkError, canonical_network
from watchword.scope import is_scope, is_scope_pattern
from watchword_server.rules.tokens import WATCHWORD, Grant, TokenKind

TTL_MIN: Final = timedelta(seconds=1)
NAME_LENGTH_MAX: Final = 255
SCOPES_MAX: Final = 64
AUDIENCES_MAX: Final = 64
GRANTS_MAX: Final = 16
NETWORKS_MAX: Final = 32
SHA256_BYTES: Final = 32
METADATA_PAIRS_MAX: Final = 32
METADATA_VALUE_LENGTH_MAX: Final = 1024
# What every answer about a token carries: scopes, audiences, metadata and bindings. A verifier asks about 256 tokens at
# a time, and gRPC's clients take 4 MiB: with longer ones one token's holder could make a service refuse all callers.
CARRIED_BYTES_MAX: Final = 12 * 1024
GRANTS_BYTES_MAX: Final = 12 * 1024
REQUEST_ID_LENGTH_MAX: Final = 128
BATCH_MAX: Final = 1000
REGISTRATIONS_MAX: Final = 256
PAGE_SIZE_MAX: Final = 1000
PAGE_SIZE_DEFAULT: Final = 100
# How much is done to find the scope that was meant by a misspelt one.
_ADVISED_MAX: Final = 4
_COMPARED_MAX: Final = 100
_ADVICE_LENGTHS_APART_MAX: Final = 8

# ASCII, so that two names which look alike are alike.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", re.ASCII)
_PATTERN: Final = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._:/@-]*[.:/]\*", re.ASCII)
_METADATA_KEY: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_NETWORK_LIKE: Final = re.compile(r"[0-9A-Fa-f.:]{1,45}/[0-9]{1,3}", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)
# Control, format (which holds the right-to-left marks), surrogate, private use and unassigned: nothing that people see.
_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(slots=True)
class Faults:
    """Collects what is wrong with a request: pairs of field path and description. Never repeats a secret."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, description: str) -> None:
        """Notes one fault."""
        self.found.append((path, description))

    def text(self, path: str, value: str, *, length_max: int = NAME_LENGTH_MAX) -> None:
        """Free text for people: bounded, and nothing in it that cannot be seen."""
        if len(value) > length_max:
            self.add(path, f"has {len(value)} characters; at most {length_max} are allowed")
        elif any(unicodedata.category(character) in _UNSEEN_CATEGORIES for character in value):
            self.add(path, "has control, text-direction or other invisible characters")

    def name(self, path: str, value: str) -> None:
        """A subject or audience."""
        if not value:
            self.add(path, "is required")
        elif len(value) > NAME_LENGTH_MAX or not _NAME.fullmatch(value):
            self.add(path, "must be 1 to 255 characters of A-Z a-z 0-9 . _ : / @ -, beginning with a letter or digit")

    def pattern(self, path: str, value: str) -> None:
        """A subject or audience pattern, as in grants."""
        if len(value) > NAME_LENGTH_MAX or not (_NAME.fullmatch(value) or _PATTERN.fullmatch(value)):
            self.add(path, "must be a name, a prefix ending in '.*', '/*' or ':*', or '*'")

    def count(self, path: str, values: Sequence[object], count_max: int, *, count_min: int = 0) -> bool:
        """A list's length. False if it is wrong, so that nobody goes through a list of a million."""
        if len(values) < count_min:
            self.add(path, f"needs at least {count_min}")
            return False
        if len(values) > count_max:
            self.add(path, f"has {len(values)} entries; at most {count_max} are allowed")
            return False
        return True

    def scope_patterns(self, path: str, values: Sequence[str]) -> None:
        """Scopes that a token may hold."""
        if self.count(path, values, SCOPES_MAX):
            for at, value in enumerate(values):
                if not is_scope_pattern(value):
                    self.add(f"{path}[{at}]", "must be lower-case ASCII segments, as 'orders.read', 'orders.*' or '*'")

    def required_scopes(self, path: str, values: Sequence[str]) -> None:
        """Scopes that a call needs: none with a wildcard."""
        if self.count(path, values, SCOPES_MAX):
            for at, value in enumerate(values):
                if not is_scope(value):
                    self.add(f"{path}[{at}]", "must be a scope without a wildcard, as 'orders.read'")

    def audiences(self, path: str, values: Sequence[str]) -> None:
        """Audiences of a token: names, or `*`, which has to be written out."""
        if self.count(path, values, AUDIENCES_MAX, count_min=1):
            for at, value in enumerate(values):
                if value != "*":
                    self.name(f"{path}[{at}]", value)

    def grants(self, path: str, grants: Sequence[Grant]) -> None:
        """Grants of a token."""
        if not self.count(path, grants, GRANTS_MAX):
            return
        for at, grant in enumerate(grants):
            here = f"{path}[{at}]"
            self.scope_patterns(f"{here}.scopes", grant.scopes)
            for kind, patterns in (("subjects", grant.subjects), ("audiences", grant.audiences)):
                if self.count(f"{here}.{kind}", patterns, AUDIENCES_MAX, count_min=1):
                    for index, pattern in enumerate(patterns):
                        self.pattern(f"{here}.{kind}[{index}]", pattern)

    def metadata(self, path: str, pairs: Mapping[str, str]) -> None:
        """The owner's own pairs."""
        if len(pairs) > METADATA_PAIRS_MAX:
            self.add(path, f"has {len(pairs)} pairs; at most {METADATA_PAIRS_MAX} are allowed")
            return
        for key, value in pairs.items():
            if not _METADATA_KEY.fullmatch(key):
                self.add(path, "has a key that is not 1 to 64 characters of a-z 0-9 _ . -")
            else:
                self.text(f"{path}[{key}]", value, length_max=METADATA_VALUE_LENGTH_MAX)

    def owner(self, path: str, kind: TokenKind, value: str) -> None:
        """Whose a personal token is."""
        if kind is TokenKind.PERSONAL:
            self.name(path, value)
        elif value:
            self.add(path, "is for personal tokens only")

    def idle_timeout(self, path: str, kind: TokenKind, value: timedelta | None, life_max: timedelta) -> None:
        """How long a session may go unused. `life_max` is how long it lives at most."""
        if kind is not TokenKind.SESSION:
            if value is not None:
                self.add(path, "is for sessions only")
        elif value is None:
            self.add(path, "is required for a session")
        elif not TTL_MIN <= value <= life_max:
            self.add(path, f"must be from 1 s to {seconds_text(life_max)}, as long as the token lives")

    def networks(self, path: str, values: Sequence[str]) -> tuple[str, ...]:
        """Networks that calls may come from, in their canonical form."""
        networks: list[str] = []
        if self.count(path, values, NETWORKS_MAX):
            for at, value in enumerate(values):
                try:
                    networks.append(canonical_network(value))
                except NetworkError as error:
                    # Its text repeats the value, so only where that cannot be a secret that went astray.
                    meant = _NETWORK_LIKE.fullmatch(value)
                    self.add(f"{path}[{at}]", str(error) if meant else "is not a network, as '10.1.0.0/16'")
        return tuple(dict.fromkeys(networks))

    def certificate(self, path: str, value: bytes) -> None:
        """The SHA-256 of a certificate, where there is one."""
        if value and len(value) != SHA256_BYTES:
            self.add(path, f"has {len(value)} bytes; the SHA-256 of a certificate's DER form has {SHA256_BYTES}")

    def address(self, path: str, value: str) -> None:
        """An address, where there is one."""
        if value:
            try:
                ip_address(value)
            except ValueError:
                self.add(path, "is not an IPv4 or IPv6 address without port")

    def not_negative(self, path: str, value: timedelta | None) -> None:
        """A length of time, where there is one."""
        if value is not None and value < timedelta():
            self.add(path, "must not be negative")

    def carried(
        self,
        scopes: Sequence[str],
        audiences: Sequence[str],
        metadata: Mapping[str, str],
        networks: Sequence[str] = (),
        certificate: bytes = b"",
    ) -> None:
        """What goes with each answer about a token, together. Blames the longest."""
        sizes = {
            "scopes": _bytes_of(scopes),
            "audiences": _bytes_of(audiences),
            "metadata": _bytes_of(metadata) + _bytes_of(metadata.values()),
            "allowed_networks": _bytes_of(networks),
            "certificate_sha256": len(certificate),
        }
        total = sum(sizes.values())
        if total > CARRIED_BYTES_MAX:
            self.add(
                max(sizes, key=sizes.__getitem__),
                f"scopes, audiences, metadata and bindings have {total} bytes together;"
                f" at most {CARRIED_BYTES_MAX} are allowed",
            )

    def grants_together(self, path: str, grants: Sequence[Grant]) -> None:
        """All grants of a token: lists show them whole."""
        total = sum(_bytes_of((*grant.scopes, *grant.subjects, *grant.audiences)) for grant in grants)
        if total > GRANTS_BYTES_MAX:
            self.add(path, f"has {total} bytes; at most {GRANTS_BYTES_MAX} are allowed")

    def request_id(self, path: str, value: str) -> None:
        """The caller's key for a retry."""
        if value and (len(value) > REQUEST_ID_LENGTH_MAX or not _REQUEST_ID.fullmatch(value)):
            self.add(path, f"must be up to {REQUEST_ID_LENGTH_MAX} printable ASCII characters without spaces")

    def registration(self, path: str, name: str, description: str) -> None:
        """A scope for the catalogue."""
        if not is_scope(name):
            self.add(f"{path}.name", "must be lower-case ASCII segments joined by dots, as 'orders.read'")
        elif name == WATCHWORD or name.startswith(WATCHWORD + "."):
            self.add(f"{path}.name", "the name 'watchword' and everything below it is reserved")
        self.text(f"{path}.description", description)


def seconds_text(length: timedelta) -> str:
    """A length of time as messages have it, in whole seconds."""
    return f"{length // timedelta(seconds=1)} s"


def _bytes_of(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def unknown_scopes(held: Iterable[str], catalogue: frozenset[str]) -> list[tuple[str, str]]:
    """Those of a token's scopes that the catalogue does not know, each with advice.

    A wildcard is known if some catalogued scope lies below it.
    """
    unknown: list[tuple[str, str]] = []
    for scope in held:
        if scope in catalogue or scope == "*":
            continue
        if scope.endswith(".*") and any(name.startswith(scope[:-1]) for name in catalogue):
            continue
        nearest = _nearest(scope.removesuffix(".*"), catalogue) if len(unknown) < _ADVISED_MAX else []
        hint = f"did you mean '{nearest[0]}'?" if nearest else "scopes are added with RegisterScopes"
        unknown.append((scope, f"is not in the catalogue; {hint}"))
    return unknown


def _nearest(scope: str, catalogue: frozenset[str]) -> list[str]:
    """The catalogued name that was probably meant. A comparison costs about 75 us and every other call waits meanwhile,
    so few are made, among names that share the part before the first dot or all that follows it
    (test_misspelt_scopes_hold_up_nobody_however_large_the_catalogue)."""
    head, _, tail = scope.partition(".")
    alike = [
        name
        for name in catalogue
        if abs(len(name) - len(scope)) <= _ADVICE_LENGTHS_APART_MAX
        and (name.startswith(head + ".") or name.partition(".")[2] == tail)
    ]
    alike.sort(key=lambda name: (abs(len(name) - len(scope)), name))
    return get_close_matches(scope, alike[:_COMPARED_MAX], n=1, cutoff=0.6)
