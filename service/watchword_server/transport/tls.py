"""TLS whose files may be replaced while the server runs.

grpcio asks for its certificates at every handshake. The answer is a `stat` of the files unless they changed; then they
are read, and taken only if they belong together. A rotation that is half done (new certificate, old key) keeps
the old pair and says so once: connections go on, and the next handshake looks again.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import grpc
from cryptography import x509

_Signature: TypeAlias = tuple[tuple[int, int, int, int], ...]
_Log: TypeAlias = Callable[[str], None]


class TlsError(Exception):
    """The TLS files cannot be used. The text names them and never shows their content."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the chain (leaf first), its unencrypted key, and who may sign clients' certificates (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


def server_credentials(files: TlsFiles, *, warn: _Log, inform: _Log) -> grpc.ServerCredentials:
    """Credentials for `build_server`. With a client CA, a client without a certificate of it is refused.

    `warn` hears once of each unusable state of the files, `inform` of each rotation; both are called on gRPC's threads.
    Raises TlsError if the files cannot be used now: a server never starts with TLS that does not work.
    """
    rotation = _Rotation(files, warn, inform)
    return grpc.dynamic_ssl_server_credentials(
        rotation.configuration,
        rotation.fetch,  # type: ignore[arg-type]  # its stub leaves out None, which means unchanged
        require_client_authentication=files.client_ca is not None,
    )


def certificate_ends_at(certificate: Path) -> datetime:
    """When the first certificate of the chain in this file ends. Raises OSError, ValueError."""
    return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(certificate.read_bytes()))


class _Rotation:
    """Keeps the last good pair. `fetch` runs on whichever gRPC thread does a handshake."""

    def __init__(self, files: TlsFiles, warn: _Log, inform: _Log) -> None:
        self._files = files
        self._warn = warn
        self._inform = inform
        self._lock = threading.Lock()
        self._seen, self.configuration = _load(files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """A new configuration if the files changed and fit, else None, which lets gRPC keep what it has."""
        with self._lock:
            try:
                found = _signature(self._files)
                if found == self._seen:
                    return None
                # Remembered also when it cannot be used: one warning a state, and any later write is another state.
                self._seen = found
                self._seen, self.configuration = _load(self._files)
            except (TlsError, OSError) as error:
                self._warn(f"keeping the TLS certificate in use: {error}")
                return None
            self._inform("the TLS certificate was replaced")
            return self.configuration


def _signature(files: TlsFiles) -> _Signature:
    found = []
    for path in files.paths:
        status = path.stat()
        found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _load(files: TlsFiles) -> tuple[_Signature, grpc.ServerCertificateConfiguration]:
    try:
        before = _signature(files)
        contents = [path.read_bytes() for path in files.paths]
        check_files(files)
        if _signature(files) != before:
            raise TlsError("the files are being written right now")
    except OSError as error:
        # ssl.SSLError is an OSError too: its text names OpenSSL's reason and no content.
        raise TlsError(f"{', '.join(map(str, files.paths))}: {error.strerror or error}") from None
    configuration = grpc.ssl_server_certificate_configuration(
        [(contents[1], contents[0])], root_certificates=contents[2] if files.client_ca is not None else None
    )
    return before, configuration


def check_files(files: TlsFiles) -> None:
    """Raises OSError unless OpenSSL accepts the chain, the key, that they belong together, and the authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # An encrypted key would otherwise ask for its passphrase on the terminal.
    context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    if files.client_ca is not None:
        context.load_verify_locations(cafile=os.fspath(files.client_ca))
