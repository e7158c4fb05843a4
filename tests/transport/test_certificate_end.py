"""What the metric and its alert say about the certificate comes from the file that the next handshake uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from watchword_server.transport.tls import certificate_ends_at


def test_chain_ends_with_its_first_certificate_to_end(tmp_path: Path) -> None:
    authority = trustme.CA()
    soon, later = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (3, 300))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        b"".join(
            authority.issue_cert("watchword.example", not_after=ends_at).cert_chain_pems[0].bytes()
            for ends_at in (later, soon)
        )
    )
    assert certificate_ends_at(chain) == soon


def test_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match="PEM"):
        certificate_ends_at(tmp_path / "empty.pem")
