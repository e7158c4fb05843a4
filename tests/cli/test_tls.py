"""Calls over TLS: with the right authority they arrive, otherwise the message says what is amiss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme

from tests.cli.authority import Authority, serving
from tests.cli.conftest import CommandLine


@pytest.fixture
def authority_file(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


@pytest.fixture
def secured(authority_file: Path) -> Iterator[Authority]:
    """Behind a certificate for `tokens.example`, called by its loopback address."""
    issuer = trustme.CA()
    issuer.cert_pem.write_to_path(authority_file)
    issued = issuer.issue_cert("tokens.example")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    with serving(Authority(), credentials) as running:
        yield running


@pytest.fixture
def caller(offline: CommandLine, secured: Authority) -> CommandLine:
    offline.environment |= {"WATCHWORD_ADDRESS": secured.address, "WATCHWORD_TOKEN": secured.add("admin")}
    return offline


def test_call_arrives_with_the_right_authority_and_name(caller: CommandLine, authority_file: Path) -> None:
    ended = caller("tokens", "list", "--ca-file", str(authority_file), "--server-name", "tokens.example")
    assert ended.returncode == 0, ended.stderr
    assert "admin" in ended.stdout


def test_token_is_not_sent_to_a_server_of_another_name(
    caller: CommandLine, secured: Authority, authority_file: Path
) -> None:
    ended = caller("tokens", "list", "--ca-file", str(authority_file))
    assert ended.returncode == 3
    assert "--server-name" in ended.stderr
    assert secured.bearers == []


def test_token_is_not_sent_to_a_server_of_an_unknown_authority(caller: CommandLine, secured: Authority) -> None:
    ended = caller("tokens", "list", "--tls", "--server-name", "tokens.example")
    assert ended.returncode == 3
    assert "--ca-file" in ended.stderr
    assert secured.bearers == []


def test_plaintext_to_a_server_with_tls_says_so(caller: CommandLine, secured: Authority) -> None:
    ended = caller("tokens", "list")
    assert ended.returncode == 3
    assert "--tls" in ended.stderr
    assert secured.bearers == []
