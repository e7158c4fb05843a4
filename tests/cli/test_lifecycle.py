"""What is done about tokens day to day: narrowed, looked at by their holders, their subjects blocked, their scopes
compared with what they needed."""

from __future__ import annotations

import json

import grpc
import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import CommandLine
from watchword.status import reason_detail
from watchword.v1.subject_service_pb2 import BlockSubjectRequest
from watchword.v1.token_service_pb2 import (
    PROPAGATION_PENDING,
    TOKEN_KIND_PERSONAL,
    TOKEN_KIND_SESSION,
    TOKEN_STATE_LIVE,
    TOKEN_STATE_REVOKED,
    ListTokensRequest,
    NarrowRequest,
    ServiceUse,
    Token,
)


def used(authority: Authority, *, unused: tuple[str, ...] = ()) -> Token:
    """A token with two scopes that two services saw."""
    token = authority.tokens[authority.add("shop", scopes=["orders.*", "till.open"], name="nightly")]
    token.created_at.FromJsonString("2026-01-31T12:00:00Z")
    token.usage.use_count = 41
    token.usage.last_used_at.FromJsonString("2026-02-28T12:00:00Z")
    token.usage.services.append(
        ServiceUse(service="orders-service", address="10.1.2.3", use_count=40, scopes=["orders.read"])
    )
    token.usage.services.append(ServiceUse(service="till-service", address="2001:db8::7", use_count=1))
    token.usage.unused_scopes.extend(unused)
    return token


def test_narrow_takes_scopes_and_life_and_says_how_far_it_is(watchword: CommandLine, authority: Authority) -> None:
    token = authority.tokens[authority.add(scopes=["a.read", "a.write"])]
    ended = watchword(
        *("tokens", "narrow", token.token_id, "--remove-scope", "a.write", "--ttl", "1h", "--reason", "unused")
    )
    assert ended.returncode == 0, ended.stderr
    (request,) = authority.requests
    assert isinstance(request, NarrowRequest)
    assert (list(request.remove_scopes), request.ttl.seconds, request.reason) == (["a.write"], 3600, "unused")
    assert "COMPLETE: gone everywhere" in ended.stdout
    assert "a.write" not in ended.stdout


def test_narrow_that_is_pending_exits_7(watchword: CommandLine, authority: Authority, fleet: None) -> None:
    authority.propagation = PROPAGATION_PENDING
    token = authority.tokens[authority.add(scopes=["a.read"])]
    ended = watchword("tokens", "narrow", token.token_id, "--remove-scope", "a.read")
    assert ended.returncode == 7
    assert "gone everywhere within 30s" in ended.stdout
    assert "the verifier orders (web-3)" in ended.stderr
    assert watchword("tokens", "narrow", token.token_id, "--ttl", "1h", "--no-wait").returncode == 0


def test_narrow_names_the_successor_that_keeps_what_it_held(watchword: CommandLine, authority: Authority) -> None:
    token = authority.tokens[authority.add(scopes=["a.read", "a.write"], successor_id="after")]
    ended = watchword("tokens", "narrow", token.token_id, "--remove-scope", "a.write")
    assert ended.returncode == 0, ended.stderr
    assert "Its successor after was left alone" in ended.stderr


def test_narrow_with_nothing_to_take_is_a_usage_error(watchword: CommandLine, authority: Authority) -> None:
    assert watchword("tokens", "narrow", "x").returncode == 2
    assert authority.requests == []


def test_whoami_shows_the_own_record_and_its_use(watchword: CommandLine, authority: Authority) -> None:
    own = authority.tokens[watchword.caller]
    own.usage.services.append(ServiceUse(service="watchword", address="10.1.2.3", use_count=3))
    ended = watchword("whoami")
    assert ended.returncode == 0, ended.stderr
    for shown in (own.token_id, "watchword.*", "10.1.2.3"):
        assert shown in ended.stdout
    assert watchword.caller not in ended.stdout
    assert json.loads(watchword("whoami", "-o", "json").stdout)["token"]["usage"]["services"][0]["use_count"] == 3


def test_record_shows_lineage_bindings_idle_end_and_users(watchword: CommandLine, authority: Authority) -> None:
    token = used(authority, unused=("till.open",))
    token.kind, token.owner = TOKEN_KIND_PERSONAL, "ada"
    token.allowed_networks.extend(["10.1.0.0/16", "2001:db8::/32"])
    token.certificate_sha256 = bytes(range(32))
    token.predecessor_id, token.successor_id, token.lineage_id, token.tied_to = "before", "after", "first", "issuers"
    token.rotated_at.FromJsonString("2026-02-01T12:00:00Z")
    shown = watchword("tokens", "show", token.token_id).stdout
    for text in (
        *("personal", "ada", "10.1.0.0/16", "2001:db8::/32", "before", "after", "first", "issuers"),
        *("2026-02-01T12:00:00Z", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", bytes(range(32)).hex()),
        *("orders-service", "10.1.2.3", "2001:db8::7", "2026-02-28T12:00:00Z", "41"),
    ):
        assert text in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("never needed")] == [
        ["never", "needed", "till.open"]
    ]


def test_record_of_a_session_shows_when_it_ends_unless_it_is_used(watchword: CommandLine, authority: Authority) -> None:
    token = authority.tokens[authority.add(kind=TOKEN_KIND_SESSION)]
    token.idle_timeout.FromSeconds(1800)
    token.idle_expires_at.FromJsonString("2026-02-01T12:30:00Z")
    shown = watchword("tokens", "show", token.token_id).stdout
    assert "30m" in shown
    assert "unless it is used before" in shown
    # And the list has the end that comes first.
    assert "2026-02-01T12:30:00Z" in watchword("tokens", "list").stdout


def test_list_asks_for_owner_kind_and_use(watchword: CommandLine, authority: Authority) -> None:
    used(authority)
    ended = watchword(
        *("tokens", "list", "--owner", "ada", "--kind", "personal", "--unused-for", "30d"),
        *("--expiring-within", "7d", "--usage"),
    )
    assert ended.returncode == 0, ended.stderr
    (request,) = authority.requests
    assert isinstance(request, ListTokensRequest)
    assert (request.owner, request.kind, request.with_usage) == ("ada", TOKEN_KIND_PERSONAL, True)
    assert (request.unused_for.seconds, request.expiring_within.seconds) == (30 * 86_400, 7 * 86_400)
    for shown in ("orders-service(10.1.2.3)", "2026-02-28T12:00:00Z", "never seen"):
        assert shown in ended.stdout


def test_list_without_filters_asks_for_all(watchword: CommandLine, authority: Authority) -> None:
    watchword("tokens", "list")
    (request,) = authority.requests
    assert isinstance(request, ListTokensRequest)
    assert not request.HasField("unused_for")
    assert not request.HasField("expiring_within")
    assert (request.kind, request.with_usage) == (0, False)


def test_unused_scopes_are_named_and_exit_1(watchword: CommandLine, authority: Authority) -> None:
    token = used(authority, unused=("till.open",))
    ended = watchword("tokens", "scopes", "--unused")
    assert ended.returncode == 1
    (line,) = (line for line in ended.stdout.splitlines() if token.token_id in line)
    assert line.split()[1:4] == ["till.open", "nobody", "2026-01-31T12:00:00Z"]
    assert "watchword tokens narrow" in ended.stderr


@pytest.mark.parametrize("by_id", [True, False])
def test_scopes_that_were_all_needed_exit_0(watchword: CommandLine, authority: Authority, by_id: bool) -> None:
    token = used(authority)
    ended = watchword("tokens", "scopes", "--unused", *([token.token_id] if by_id else []))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "was needed" in ended.stderr


def test_scopes_come_with_who_needed_them(watchword: CommandLine, authority: Authority) -> None:
    token = used(authority, unused=("till.open",))
    ended = watchword("tokens", "scopes", token.token_id, "-o", "json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["tokens"] == [
        {
            "token_id": token.token_id,
            "subject": "shop",
            "name": "nightly",
            "created_at": "2026-01-31T12:00:00Z",
            "scopes": ["orders.*", "till.open"],
            "unused_scopes": ["till.open"],
            "needed_by": {"orders.*": ["orders-service"], "till.open": []},
            "last_used_at": "2026-02-28T12:00:00Z",
        }
    ]


def test_scopes_of_no_token_exit_4(watchword: CommandLine, authority: Authority) -> None:
    assert watchword("tokens", "scopes", "--unused", "--subject", "nobody").returncode == 4
    assert watchword("tokens", "scopes", "--unused", "no-such-id").returncode == 4


def test_block_ends_what_a_subject_has_and_owns(watchword: CommandLine, authority: Authority) -> None:
    own, script = authority.add("mallory"), authority.add("script", owner="mallory")
    ended = watchword("subjects", "block", "mallory", "--reason", "LEFT", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert authority.requests == [BlockSubjectRequest(subject="mallory", reason="LEFT")]
    assert "COMPLETE: dead everywhere" in ended.stdout
    assert {authority.tokens[secret].state for secret in (own, script)} == {TOKEN_STATE_REVOKED}
    listed = watchword("subjects", "list")
    assert "mallory" in listed.stdout
    assert "LEFT" in listed.stdout
    assert watchword("subjects", "unblock", "mallory").returncode == 0
    assert watchword("subjects", "unblock", "mallory").returncode == 4
    assert watchword("subjects", "list").stdout == ""


def test_block_without_a_terminal_needs_yes(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add("mallory")
    ended = watchword("subjects", "block", "mallory")
    assert (ended.returncode, "--yes" in ended.stderr) == (2, True)
    assert authority.tokens[secret].state == TOKEN_STATE_LIVE


def test_block_that_is_pending_exits_7(watchword: CommandLine, authority: Authority) -> None:
    authority.propagation = PROPAGATION_PENDING
    ended = watchword("subjects", "block", "mallory", "--yes", "-o", "json")
    assert (ended.returncode, json.loads(ended.stdout)["effective_in"]) == (7, "30s")


@pytest.mark.parametrize(
    "arguments",
    [
        ("tokens", "narrow", "x", "--remove-scope", "a"),
        ("subjects", "block", "x", "--yes"),
        ("revoke", "--id", "x"),
    ],
)
def test_the_last_administrator_is_left_alone_and_force_named(
    watchword: CommandLine, authority: Authority, arguments: tuple[str, ...]
) -> None:
    authority.refusal = (
        grpc.StatusCode.FAILED_PRECONDITION,
        "it would leave no administrator",
        (reason_detail("LAST_ADMINISTRATOR"),),
    )
    ended = watchword(*arguments)
    assert ended.returncode == 6
    assert "--force" in ended.stderr
    assert "watchword issue" in ended.stderr
    watchword(*arguments, "--force")
    assert authority.requests[-1].force  # type: ignore[attr-defined]
