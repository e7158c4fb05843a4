"""Where a call goes, over what, and whose token goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchword_server.cli.connect import Endpoint, endpoint, find_credential
from watchword_server.cli.errors import CommandError


def an_endpoint(
    address: str, *, tls: bool = False, ca_file: Path | None = None, danger: bool = False, key_file: Path | None = None
) -> Endpoint:
    return endpoint(
        address,
        tls=tls,
        ca_file=ca_file,
        certificate_file=None,
        key_file=key_file,
        server_name=None,
        allow_plaintext_on_network_danger=danger,
    )


@pytest.mark.parametrize(
    ("address", "normalized", "is_local"),
    [
        ("127.0.0.1:7600", "127.0.0.1:7600", True),
        ("127.9.9.9", "127.9.9.9:7600", True),
        ("localhost", "localhost:7600", True),
        ("[::1]:80", "[::1]:80", True),
        ("unix:/run/watchword.sock", "unix:/run/watchword.sock", True),
        ("dns:///tokens.example:7600", "tokens.example:7600", False),
        ("tokens.example", "tokens.example:7600", False),
        ("10.0.0.1:7600", "10.0.0.1:7600", False),
        ("0.0.0.0:7600", "0.0.0.0:7600", False),
        ("localhost.example:7600", "localhost.example:7600", False),
    ],
)
def test_plaintext_is_for_this_machine_only(address: str, normalized: str, is_local: bool) -> None:
    target = an_endpoint(address)
    assert (target.address, target.is_local, target.tls) == (normalized, is_local, not is_local)


@pytest.mark.parametrize("address", ["", ":7600", "host:port", "http://host:1", "::1:7600"])
def test_address_that_leaves_doubt_is_refused(address: str) -> None:
    with pytest.raises(CommandError) as refused:
        an_endpoint(address)
    assert refused.value.exit_code == 2


def test_plaintext_on_the_network_needs_the_dangerous_option() -> None:
    assert not an_endpoint("10.0.0.1:1", danger=True).tls


def test_tls_can_be_asked_for_on_this_machine(tmp_path: Path) -> None:
    assert an_endpoint("127.0.0.1:1", tls=True).tls
    assert an_endpoint("127.0.0.1:1", ca_file=tmp_path).tls


def test_tls_and_plaintext_exclude_each_other() -> None:
    with pytest.raises(CommandError):
        an_endpoint("10.0.0.1:1", tls=True, danger=True)


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        an_endpoint("127.0.0.1:1", key_file=tmp_path)


def token_file(folder: Path, content: str) -> Path:
    file = folder / content
    file.write_text(content)
    return file


def test_credentials_are_looked_for_in_order(tmp_path: Path) -> None:
    token_file(tmp_path, "admin-token")
    environment = {
        "WATCHWORD_TOKEN": "from-variable",
        "WATCHWORD_TOKEN_FILE": str(token_file(tmp_path, "from-file")),
        "WATCHWORD_DATA_DIR": str(tmp_path),
    }
    option = token_file(tmp_path, "from-option")
    assert find_credential(option, environment, is_local=False).secret == "from-option"
    assert find_credential(None, environment, is_local=False).secret == "from-variable"
    del environment["WATCHWORD_TOKEN"]
    assert find_credential(None, environment, is_local=False).secret == "from-file"
    del environment["WATCHWORD_TOKEN_FILE"]
    assert find_credential(None, environment, is_local=True).secret == "admin-token"


def test_administrators_token_never_goes_to_another_machine(tmp_path: Path) -> None:
    token_file(tmp_path, "admin-token")
    with pytest.raises(CommandError) as refused:
        find_credential(None, {"WATCHWORD_DATA_DIR": str(tmp_path)}, is_local=False)
    assert refused.value.exit_code == 5


def test_credential_hides_its_secret(tmp_path: Path) -> None:
    assert "canary" not in repr(find_credential(None, {"WATCHWORD_TOKEN": "canary"}, is_local=False))
