"""A token is bound to the certificate that was meant, however it is named."""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path

import pytest
import trustme

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword_server.cli.bindings import certificate_sha256
from watchword_server.cli.errors import CommandError, ExitCode

DIGEST = bytes(range(224, 256))


@pytest.fixture(scope="module")
def pem() -> bytes:
    """A client's certificate with its chain behind it."""
    issued = trustme.CA().issue_cert("client")
    return b"".join(part.bytes() for part in issued.cert_chain_pems)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "certificate"
    path.write_bytes(content)
    return path


def test_pem_der_and_pem_behind_words_are_the_same(tmp_path: Path, pem: bytes) -> None:
    der = ssl.PEM_cert_to_DER_cert(pem[: pem.index(b"-----END") + 25].decode())
    expected = hashlib.sha256(der).digest()
    for content in (pem, der, b"Subject: CN=client\n" + pem):
        assert certificate_sha256(written(tmp_path, content), "") == expected


@pytest.mark.parametrize(
    "text",
    [
        DIGEST.hex(),
        DIGEST.hex().upper(),
        DIGEST.hex(":"),
        base64.urlsafe_b64encode(DIGEST).decode(),
        base64.urlsafe_b64encode(DIGEST).decode().rstrip("="),
        base64.b64encode(DIGEST).decode(),
    ],
)
def test_a_hash_is_read_in_every_way_that_people_write_it(text: str) -> None:
    assert certificate_sha256(None, text) == DIGEST


@pytest.mark.parametrize("text", ["x", DIGEST.hex()[:-1], DIGEST.hex() + "00", base64.b64encode(DIGEST[1:]).decode()])
def test_a_hash_of_the_wrong_length_is_refused(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        certificate_sha256(None, text)
    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!",
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CommandError) as refused:
        certificate_sha256(written(tmp_path, content), "")
    assert "holds no certificate" in refused.value.message


def test_issue_binds_to_certificate_and_networks(
    watchword: CommandLine, authority: Authority, tmp_path: Path, pem: bytes
) -> None:
    file = written(tmp_path, pem)
    ended = watchword(
        *("issue", "--subject", "shop", "--audience", "orders", "--certificate", str(file)),
        *("--network", "10.1.0.0/16", "--network", "2001:db8::/32"),
    )
    assert ended.returncode == 0, ended.stderr
    (request,) = authority.requests
    assert request.certificate_sha256 == certificate_sha256(file, "")  # type: ignore[attr-defined]
    assert request.allowed_networks == ["10.1.0.0/16", "2001:db8::/32"]  # type: ignore[attr-defined]
    assert request.certificate_sha256.hex() in ended.stdout  # type: ignore[attr-defined]


def test_certificate_and_hash_exclude_each_other(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate", "--certificate", "x", "--certificate-sha256", DIGEST.hex(), stdin="x")
    assert ended.returncode == 2
    assert authority.requests == []
