"""`watchword validate` answers with its exit code, and says why to operators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.v1.token_service_pb2 import (
    VERDICT_REASON_CERTIFICATE_MISMATCH,
    VERDICT_REASON_IDLE,
    VERDICT_REASON_NETWORK_MISMATCH,
    VERDICT_REASON_ROTATED,
    GetTokenRequest,
    ValidateRequest,
    VerdictReason,
)
from watchword_server.cli.validate import REASONS


def test_active_token_exits_0(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate", stdin=authority.add(scopes=["orders.read"]) + "\n")
    assert ended.returncode == 0
    assert "active" in ended.stdout
    assert "remaining" in ended.stdout


def test_unknown_token_exits_1(watchword: CommandLine) -> None:
    ended = watchword("validate", stdin="nonsense")
    assert (ended.returncode, ended.stdout) == (1, "inactive\n")


def test_lacking_scope_exits_1_and_is_named(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate", "--scope", "orders.write", stdin=authority.add(scopes=["orders.read"]))
    assert ended.returncode == 1
    assert "insufficient" in ended.stdout
    assert "orders.write" in ended.stdout


def test_token_can_come_from_a_file(watchword: CommandLine, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(authority.add())
    assert watchword("validate", "--file", str(file)).returncode == 0


def test_json_has_the_names_of_the_api(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate", "-o", "json", stdin=authority.add("shop"))
    answer = json.loads(ended.stdout)
    assert answer["active"]["subject"] == "shop"
    assert answer["active"]["remaining"] == "3600s"
    assert answer["position"]["number"] == 7


def test_no_token_at_all_is_a_usage_error(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate")
    assert ended.returncode == 2
    assert "standard input is empty" in ended.stderr
    assert authority.requests == []


@pytest.mark.parametrize(("audience", "code", "reason"), [("orders", 0, "active"), ("other", 1, "audience_mismatch")])
def test_explanation_as_a_verifier(
    watchword: CommandLine, authority: Authority, audience: str, code: int, reason: str
) -> None:
    ended = watchword("validate", "--as", "orders", stdin=authority.add(audiences=[audience]))
    assert ended.returncode == code
    assert reason in ended.stdout


def test_explanation_without_a_verifier_is_for_the_caller_itself(watchword: CommandLine, authority: Authority) -> None:
    ended = watchword("validate", "--explain", stdin=authority.add(audiences=["admin"]))
    assert ended.returncode == 0
    assert authority.requests[-1].as_verifier == "admin"  # type: ignore[attr-defined]


def test_explanation_of_an_unknown_token_exits_1(watchword: CommandLine) -> None:
    ended = watchword("validate", "--as", "orders", "--output", "json", stdin="nonsense")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["explanation"]["reason"] == "VERDICT_REASON_UNKNOWN"


def test_where_a_call_would_come_from_is_sent(watchword: CommandLine, authority: Authority) -> None:
    secret, digest = authority.add(), bytes(range(32))
    watchword("validate", "--client-ip", "10.1.2.3", "--certificate-sha256", digest.hex(), stdin=secret)
    watchword("validate", "--as", "x", "--client-ip", "10.1.2.3", "--certificate-sha256", digest.hex(), stdin=secret)
    for request in authority.requests:
        assert isinstance(request, ValidateRequest | GetTokenRequest)
        assert (request.client_ip, request.certificate_sha256) == ("10.1.2.3", digest)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (VERDICT_REASON_IDLE, "idle timeout"),
        (VERDICT_REASON_ROTATED, "Its successor is after."),
        (VERDICT_REASON_NETWORK_MISMATCH, "--client-ip"),
        (VERDICT_REASON_CERTIFICATE_MISMATCH, "--certificate"),
    ],
)
def test_each_reason_says_what_to_do(
    watchword: CommandLine, authority: Authority, reason: VerdictReason.ValueType, says: str
) -> None:
    authority.verdict_reason = reason
    ended = watchword("validate", "--as", "orders", stdin=authority.add(successor_id="after"))
    assert ended.returncode == 1
    assert says in ended.stdout


def test_every_reason_is_put_into_words() -> None:
    assert {f"VERDICT_REASON_{name}" for name in REASONS} == set(VerdictReason.keys()) - {"VERDICT_REASON_UNSPECIFIED"}
