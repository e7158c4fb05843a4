"""The peppers: secret keys that live outside the database and make its digests useless on their own.

A stolen dump confirms no guess, and someone who can write rows cannot mint a token, because both need the key of
HMAC-SHA-256 (RFC 2104). Versions allow rotation: a new one is added everywhere before it is made current.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from watchword_server.private_file import create_private_file

PEPPER_BYTES: Final = 32
PEPPER_BYTES_MAX: Final = 128
VERSION_MAX: Final = 32_767
VERSIONS_MAX: Final = 64
_DISTINCT_BYTES_MIN: Final = 12
"""32 random bytes hold fewer distinct values once in 10^15 draws; a typed password or a run of zeros does."""
_BLOCK_BYTES: Final = 64
_CHECK_CONSTANT: Final = b"watchword pepper check"


Scheme = Callable[[bytes], Callable[[bytes], bytes]]


class KeyringError(ValueError):
    """The keyring cannot be used. Its text says what is wrong and never contains a key."""


class HmacSha256:
    """HMAC-SHA-256 (RFC 2104) under one key, whose two inner states are computed once instead of with every token."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


# How digests are made, by the number that each row carries: from a key to a function of a token. Another one is added
# here, everywhere, before it becomes a keyring's `scheme`; the rows there are keep theirs until they end.
# (test_rows_of_two_schemes_are_good_side_by_side)
HMAC_SHA_256: Final = 1
SCHEMES: Final[Mapping[int, Scheme]] = MappingProxyType({HMAC_SHA_256: HmacSha256})


@dataclass(frozen=True, slots=True)
class Keyring:
    """Peppers by version. `peppers` is kept out of `repr`."""

    current: int
    peppers: Mapping[int, bytes] = field(repr=False)
    scheme: int = HMAC_SHA_256
    """Of new digests."""
    schemes: Mapping[int, Scheme] = field(default_factory=lambda: SCHEMES, repr=False)
    highest: int = 0
    """The highest version ever given; at least that of `peppers`. A number that was dropped stays its key's: the
    database and copies of the keyring know the key by it."""
    _keyed: Mapping[tuple[int, int], Callable[[bytes], bytes]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self.current, self.peppers, self.highest)
        object.__setattr__(self, "highest", max(self.highest, *self.peppers))
        object.__setattr__(self, "peppers", MappingProxyType(dict(self.peppers)))
        keyed = {
            (number, version): scheme(pepper)
            for number, scheme in self.schemes.items()
            for version, pepper in self.peppers.items()
        }
        object.__setattr__(self, "_keyed", keyed)

    def digest(self, token: bytes) -> bytes:
        """The 32 bytes to store for a whole token, by the current scheme under the current pepper."""
        return self._keyed[self.scheme, self.current](token)

    def digest_with(self, version: int, token: bytes, scheme: int = HMAC_SHA_256) -> bytes | None:
        """The digest by the scheme and under the pepper that a row names, or None if one of them is not known here:
        unavailable, not inactive."""
        keyed = self._keyed.get((scheme, version))
        return None if keyed is None else keyed(token)

    @property
    def versions(self) -> list[int]:
        """All versions, the current one first."""
        return sorted(self.peppers, key=lambda version: (version != self.current, version))

    def check_value(self, version: int) -> bytes:
        """What the database keeps to recognise this pepper: the HMAC of a constant. Raises KeyError if unknown."""
        return self._keyed[HMAC_SHA_256, version](_CHECK_CONSTANT)

    @classmethod
    def load(cls, text: str) -> Self:
        """Reads `{"current": 1, "peppers": {"1": "<base64>"}}`, perhaps with `"highest": 2`. Raises KeyringError, which
        shows none of it."""
        try:
            document = json.loads(text, object_pairs_hook=_unique)
        except KeyringError:
            raise
        except (ValueError, RecursionError):
            # `from None`: the decoder's exception carries the whole document.
            raise KeyringError('the keyring is not JSON: {"current": 1, "peppers": {"1": "<base64>"}}') from None
        if not isinstance(document, dict) or set(document) - {"highest"} != {"current", "peppers"}:
            raise KeyringError('the keyring must have the fields "current" and "peppers", and may have "highest"')
        peppers = document["peppers"]
        if not isinstance(peppers, dict):
            raise KeyringError('"peppers" must map versions to base64 keys')
        keys = {_version(name): _pepper(name, value) for name, value in peppers.items()}
        return cls(document["current"], keys, highest=document.get("highest", 0))

    @classmethod
    def generate(cls) -> Self:
        """A keyring of one fresh random pepper, version 1."""
        return cls(1, {1: secrets.token_bytes(PEPPER_BYTES)})

    def dump(self) -> str:
        """The JSON that `load` reads. Secret."""
        peppers = {str(version): base64.b64encode(self.peppers[version]).decode() for version in sorted(self.peppers)}
        document: dict[str, Any] = {"current": self.current, "peppers": peppers}
        if self.highest > max(self.peppers):
            document["highest"] = self.highest
        return json.dumps(document) + "\n"

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The keyring in `path`; a fresh one is written there first if there is none.

        The file appears whole, on disk and with mode 0600 or not at all, and of two processes that race, both use the
        one that won. Raises KeyringError if others could read the file, or if it is damaged: a server that went on with
        a fresh one would refuse every token there is; PrivateFileError if it cannot be written.
        """
        try:
            return cls.load(_read_private(path))
        except FileNotFoundError:
            pass
        create_private_file(path, cls.generate().dump())
        return cls.load(_read_private(path))


def _check(current: object, peppers: Mapping[int, bytes], highest: object) -> None:
    if type(current) is not int:
        raise KeyringError('"current" must be a number')
    if type(highest) is not int or not 0 <= highest <= VERSION_MAX:
        raise KeyringError(f'"highest" must be a number up to {VERSION_MAX}')
    if not 1 <= len(peppers) <= VERSIONS_MAX:
        raise KeyringError(f"a keyring has 1 to {VERSIONS_MAX} peppers")
    for version, pepper in peppers.items():
        if not 1 <= version <= VERSION_MAX:
            raise KeyringError(f"a pepper's version is a number from 1 to {VERSION_MAX}")
        if not PEPPER_BYTES <= len(pepper) <= PEPPER_BYTES_MAX:
            raise KeyringError(
                f"pepper {version} must have {PEPPER_BYTES} to {PEPPER_BYTES_MAX} bytes: openssl rand -base64 32"
            )
        if len(set(pepper)) < _DISTINCT_BYTES_MIN:
            raise KeyringError(f"pepper {version} is not random: openssl rand -base64 32")
    if len(set(peppers.values())) != len(peppers):
        raise KeyringError("two versions have the same pepper")
    if current not in peppers:
        raise KeyringError(f'"current" is {current}, and there is no such pepper')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyringError("the keyring names a field or version twice")
    return found


def _version(name: str) -> int:
    # One spelling a version, or "1" and "01" would be two entries for one.
    if not (name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 5):
        raise KeyringError(f"a pepper's version is a number from 1 to {VERSION_MAX}")
    return int(name)


def _pepper(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise KeyringError(f"pepper {int(name)} must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise KeyringError(f"pepper {int(name)} is not base64") from None


def _read_private(path: Path) -> str:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyringError(f"{path} is not a file")
        if status.st_mode & 0o077:
            raise KeyringError(f"others can read {path}: chmod 600 it, and add a new pepper if they may have")
        content = file.read(65_537)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyringError("the keyring is not JSON") from None
