"""The TLS certificate on disk: whether it can be used, and until when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from watchword_server.doctor.finding import Finding
from watchword_server.settings import Settings
from watchword_server.transport.tls import TlsFiles, check_files

EXPIRY_WARNING: Final = timedelta(days=14)


def check_certificate(settings: Settings, now: datetime) -> list[Finding]:
    """Nothing without TLS. Refuses what the server would refuse, by the same check."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return []
    try:
        check_files(TlsFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file))
        chain = x509.load_pem_x509_certificates(settings.tls_certificate_file.read_bytes())
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or getattr(error, "reason", None) or "not a PEM certificate"
        return [
            Finding(
                "tls",
                "fail",
                f"the TLS files cannot be used: {said}",
                "Give an unencrypted PEM pair that belongs together in WATCHWORD_TLS_CERTIFICATE_FILE and _KEY_FILE,"
                " and for mutual TLS the authorities' certificates in WATCHWORD_TLS_CLIENT_CA_FILE.",
            )
        ]
    return [
        judge_expiry(min(one.not_valid_after_utc for one in chain), max(one.not_valid_before_utc for one in chain), now)
    ]


def judge_expiry(ends_at: datetime, begins_at: datetime, now: datetime) -> Finding:
    """The span in which every certificate of the chain is valid, against this machine's clock."""
    renew = "Put a new pair into the same files: the server takes it up without a restart."
    if now >= ends_at:
        return Finding("tls", "fail", f"the certificate ended on {ends_at:%Y-%m-%d %H:%M} UTC", renew)
    if now < begins_at:
        return Finding(
            "tls", "fail", f"the certificate begins on {begins_at:%Y-%m-%d %H:%M} UTC", "Is this machine's clock right?"
        )
    message = f"the certificate ends on {ends_at:%Y-%m-%d}"
    if ends_at - now <= EXPIRY_WARNING:
        return Finding("tls", "warn", f"{message}, in {(ends_at - now) // timedelta(days=1)} days", renew)
    return Finding("tls", "ok", message)
