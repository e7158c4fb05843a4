"""What a token is bound to, from the options of `issue` and `validate` to bytes and back to words."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl
from pathlib import Path
from typing import Final

from watchword_server.cli.errors import CommandError, ExitCode

_HASH_BYTES: Final = 32
_HEX: Final = re.compile(r"(?:[0-9a-f]{2}:?){32}", re.ASCII | re.IGNORECASE)
_FILE_BYTES_MAX: Final = 1 << 20
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM_END: Final = b"-----END CERTIFICATE-----"
_DER_SEQUENCE: Final = b"\x30"


def certificate_sha256(file: Path | None, text: str) -> bytes:
    """The SHA-256 of a certificate's DER form (RFC 8705 section 3.1), out of the certificate or as it was given; empty
    for neither. Raises CommandError."""
    if file is not None and text:
        raise CommandError(
            "--certificate and --certificate-sha256 say the same", "Give one of the two.", ExitCode.USAGE
        )
    if file is not None:
        return hashlib.sha256(_der(file)).digest()
    return _hash(text) if text else b""


def certificate_text(digest: bytes) -> str:
    """A certificate's hash as RFC 8705 writes it in `x5t#S256`, and as openssl does."""
    return f"{base64.urlsafe_b64encode(digest).decode().rstrip('=')} ({digest.hex()})" if digest else ""


def _hash(text: str) -> bytes:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.replace(":", ""))
    try:
        # With or without padding, in either alphabet: what it stands for is the same.
        plain = text.rstrip("=").replace("+", "-").replace("/", "_")
        digest = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != _HASH_BYTES:
        raise CommandError(
            f"--certificate-sha256 {text!r} is not a SHA-256",
            "Give 64 hexadecimal digits (openssl x509 -fingerprint -sha256), or 43 characters of base64url (x5t#S256).",
            ExitCode.USAGE,
        )
    return digest


def _der(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(
            f"cannot read the certificate {file}: {error.strerror}",
            "Check the path and who may read it.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        ) from None
    begin = raw.find(_PEM_BEGIN)
    der = raw
    if begin >= 0:
        # The first of a chain is the client's own.
        end = raw.find(_PEM_END, begin) + len(_PEM_END)
        try:
            der = ssl.PEM_cert_to_DER_cert(raw[begin:end].decode("ascii"))
        except ValueError:
            raise _no_certificate(file) from None
    if der[:1] != _DER_SEQUENCE or len(der) > _FILE_BYTES_MAX:
        raise _no_certificate(file)
    return der


def _no_certificate(file: Path) -> CommandError:
    return CommandError(
        f"{file} holds no certificate",
        "Give the client's certificate itself, PEM or DER; not its key, and not a request for one.",
        ExitCode.USAGE,
        "CERTIFICATE_UNREADABLE",
    )
