"""Sessions, owners, bindings, rotations and narrowings that nobody should ask for: each fault named with its field."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, Refusal, refused, unique
from watchword.v1 import subject_service_pb2 as subject_pb
from watchword.v1 import token_service_pb2 as pb

DAY_SECONDS = 86_400
MAX_GRACE_SECONDS = 7 * DAY_SECONDS


def _invalid(answer: Refusal) -> Refusal:
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    return answer


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.1.2.3/16", "did you mean 10.1.0.0/16?"),
        ("10.1.2.3/0", "did you mean 0.0.0.0/0?"),
        ("2001:db8::1/32", "did you mean 2001:db8::/32?"),
        ("::ffff:10.1.2.3/112", "did you mean"),
        ("10.1.2.3", "is not a network"),
        ("10.1.0.0/33", "is not a network"),
        ("2001:db8::/129", "is not a network"),
        ("10.1.0.0/255.255.0.0", "is not a network"),
        ("10.1.0.0/-1", "is not a network"),
        ("10.1.0.0/", "is not a network"),
        ("/16", "is not a network"),
        ("10.1/16", "is not a network"),
        ("010.1.0.0/16", "is not a network"),
        ("10.1.0.0/16 ", "is not a network"),
        ("10.1.0.0/\u0661\u0666", "is not a network"),
        ("fe80::%eth0/64", "is not a network"),
        ("office", "is not a network"),
        ("*", "is not a network"),
        ("", "is not a network"),
        ("1" * 100_000 + "/16", "is not a network"),
    ],
)
def test_what_is_no_network_is_refused_and_the_one_that_was_meant_is_named(
    admin: Party, network: str, said: str
) -> None:
    answer = _invalid(refused(admin.make, allowed_networks=["192.0.2.0/24", network]))
    assert answer.fields == ("allowed_networks[1]",)
    assert said in answer.descriptions[0]
    assert len(answer.descriptions[0]) < 200


def test_a_token_given_for_a_network_is_not_repeated(admin: Party) -> None:
    secret = admin.make().secret
    for network in (secret, secret + "/16"):
        assert secret[25:58] not in repr(_invalid(refused(admin.make, allowed_networks=[network])))


def test_networks_beyond_32_are_refused(admin: Party) -> None:
    networks = [f"10.{at}.0.0/16" for at in range(33)]
    assert len(admin.make(allowed_networks=networks[:32]).token.allowed_networks) == 32
    assert _invalid(refused(admin.make, allowed_networks=networks)).fields == ("allowed_networks",)


@pytest.mark.parametrize("length", [1, 20, 31, 33, 48, 64, 100_000])
def test_a_certificates_hash_of_the_wrong_length_is_refused(admin: Party, length: int) -> None:
    answer = _invalid(refused(admin.make, certificate_sha256=bytes(length)))
    assert answer.fields == ("certificate_sha256",)
    assert f"has {length} bytes" in answer.descriptions[0]


@pytest.mark.parametrize(
    ("idle", "ttl", "said"),
    [
        (None, None, "is required for a session"),
        (Duration(), None, "from 1 s to"),
        (Duration(nanos=999_999_999), None, "from 1 s to"),
        (Duration(seconds=-60), None, "from 1 s to"),
        (Duration(seconds=3600, nanos=1000), Duration(seconds=3600), "from 1 s to 3600 s"),
        (Duration(seconds=90 * DAY_SECONDS + 1), None, f"from 1 s to {90 * DAY_SECONDS} s"),
        (Duration(seconds=2**62), None, "is not a valid duration"),
    ],
)
def test_an_idle_timeout_beyond_the_hard_end_or_too_short_is_refused(
    admin: Party, idle: Duration | None, ttl: Duration | None, said: str
) -> None:
    answer = _invalid(refused(admin.make, kind=pb.TOKEN_KIND_SESSION, idle_timeout=idle, ttl=ttl))
    assert answer.fields == ("idle_timeout",)
    assert said in answer.descriptions[0]


def test_an_idle_timeout_as_long_as_the_token_lives_is_taken(admin: Party) -> None:
    hour = Duration(seconds=3600)
    assert admin.make(kind=pb.TOKEN_KIND_SESSION, idle_timeout=hour, ttl=hour).token.idle_timeout == hour


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"idle_timeout": Duration(seconds=60)}, ("idle_timeout",)),
        ({"kind": pb.TOKEN_KIND_SERVICE, "idle_timeout": Duration(seconds=60)}, ("idle_timeout",)),
        (
            {"kind": pb.TOKEN_KIND_PERSONAL, "owner": "ann", "idle_timeout": Duration(seconds=60)},
            ("idle_timeout",),
        ),
        ({"kind": pb.TOKEN_KIND_PERSONAL}, ("owner",)),
        ({"kind": pb.TOKEN_KIND_PERSONAL, "owner": "a n n"}, ("owner",)),
        ({"owner": "ann"}, ("owner",)),
        ({"kind": pb.TOKEN_KIND_SESSION, "owner": "ann"}, ("owner", "idle_timeout")),
        ({"kind": 4}, ("kind",)),
        ({"kind": 2**31 - 1}, ("kind",)),
        ({"kind": -1}, ("kind",)),
    ],
)
def test_what_a_kind_does_not_take_or_lacks_is_named(
    admin: Party, fields: dict[str, object], wrong: tuple[str, ...]
) -> None:
    assert _invalid(refused(admin.make, **fields)).fields == wrong


def test_faults_are_named_all_at_once(admin: Party) -> None:
    answer = _invalid(
        refused(
            admin.make,
            subject=" ",
            kind=pb.TOKEN_KIND_PERSONAL,
            idle_timeout=Duration(seconds=1),
            allowed_networks=["10.1.2.3/16"],
            certificate_sha256=b"x",
        )
    )
    assert answer.fields == ("subject", "owner", "idle_timeout", "allowed_networks[0]", "certificate_sha256")


def test_bindings_count_in_what_a_token_carries(admin: Party) -> None:
    """Every answer about the token has them in it."""
    metadata = {"k": "x" * 1024}
    audiences = ["admin", *(f"{at:02}" + "a" * 180 for at in range(60))]
    networks = [f"2001:db8:{at:x}:ffff:ffff:ffff:ffff:fff0/124" for at in range(32)]
    assert admin.make(audiences=audiences, metadata=metadata).token.audiences == audiences
    answer = _invalid(refused(admin.make, audiences=audiences, metadata=metadata, allowed_networks=networks))
    assert answer.fields == ("audiences",)
    assert "bindings" in answer.descriptions[0]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"grace": Duration(seconds=-1)}, "grace"),
        ({"grace": Duration(seconds=MAX_GRACE_SECONDS, nanos=1000)}, "grace"),
        ({"grace": Duration(seconds=2**62)}, "grace"),
        ({"ttl": Duration()}, "ttl"),
        ({"ttl": Duration(nanos=999_999_999)}, "ttl"),
        ({"ttl": Duration(seconds=-60)}, "ttl"),
        ({"ttl": Duration(seconds=90 * DAY_SECONDS + 1)}, "ttl"),
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"token_id": "short"}, "token_id"),
    ],
)
def test_a_rotation_that_asks_for_too_much_is_refused(admin: Party, fields: dict[str, object], wrong: str) -> None:
    caller = admin.party(unique(), ["watchword.issue"])
    answer = _invalid(refused(caller.rotate, pb.RotateRequest(**fields)))  # type: ignore[arg-type]
    assert answer.fields == (wrong,)
    assert not caller.who_am_i().successor_id


def test_a_grace_beyond_the_cap_names_the_cap(admin: Party) -> None:
    caller = admin.party(unique())
    answer = _invalid(refused(caller.rotate, pb.RotateRequest(grace=Duration(seconds=MAX_GRACE_SECONDS + 1))))
    assert f"from 0 to {MAX_GRACE_SECONDS} s" in answer.descriptions[0]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "remove_scopes"),
        ({"remove_scopes": ["watchword.Issue"]}, "remove_scopes[0]"),
        ({"remove_scopes": ["watchword.read", "watchword.issue"]}, "remove_scopes[1]"),
        ({"remove_scopes": ["watchword.*"]}, "remove_scopes[0]"),
        ({"remove_scopes": ["a.b"] * 65}, "remove_scopes"),
        ({"ttl": Duration()}, "ttl"),
        ({"ttl": Duration(seconds=-1)}, "ttl"),
        ({"ttl": Duration(seconds=91 * DAY_SECONDS)}, "ttl"),
        ({"ttl": Duration(seconds=2**62)}, "ttl"),
        ({"remove_scopes": ["watchword.read"], "reason": "a\x00b"}, "reason"),
    ],
)
def test_a_narrowing_that_would_not_narrow_is_refused(admin: Party, fields: dict[str, object], wrong: str) -> None:
    made = admin.issue(unique(), ["watchword"], ["watchword.read"])
    request = pb.NarrowRequest(token_id=made.token.token_id, **fields)  # type: ignore[arg-type]
    answer = _invalid(refused(admin.narrow, request))
    assert answer.fields == (wrong,)
    assert admin.record(made.token.token_id).scopes == ["watchword.read"]


def test_a_token_id_that_is_none_is_refused(admin: Party) -> None:
    for token_id in ("", "x", "0" * 23, "\u0661" * 22):
        request = pb.NarrowRequest(token_id=token_id, remove_scopes=["a.b"])
        assert _invalid(refused(admin.narrow, request)).fields == ("token_id",)


@pytest.mark.parametrize("subject", ["", " ", "a b", "*", "team/*", "x" * 256, "a\x00b"])
def test_what_is_no_subject_cannot_be_blocked(admin: Party, subject: str) -> None:
    assert _invalid(refused(admin.block, subject)).fields == ("subject",)
    assert _invalid(refused(admin.unblock, subject)).fields == ("subject",)


def test_a_page_of_blocked_subjects_has_its_limits(admin: Party) -> None:
    for request, field in (
        (subject_pb.ListBlockedSubjectsRequest(page_size=1001), "page_size"),
        (subject_pb.ListBlockedSubjectsRequest(page_size=-1), "page_size"),
        (subject_pb.ListBlockedSubjectsRequest(page_token="?"), "page_token"),
    ):
        assert _invalid(refused(admin.blocked, request)).fields == (field,)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"owner": "a n n"}, "owner"),
        ({"kind": 9}, "kind"),
        ({"unused_for": Duration(seconds=-1)}, "unused_for"),
        ({"expiring_within": Duration(seconds=-1)}, "expiring_within"),
        ({"expiring_within": Duration(seconds=2**62)}, "expiring_within"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(admin: Party, fields: dict[str, object], wrong: str) -> None:
    request = pb.ListTokensRequest(**fields)  # type: ignore[arg-type]
    assert _invalid(refused(admin.list_tokens, request)).fields == (wrong,)


@pytest.mark.parametrize("days", [365_000, 3_652_000])
def test_nothing_is_unused_for_as_long_as_there_are_no_tokens(admin: Party, days: int) -> None:
    assert not admin.list_tokens(pb.ListTokensRequest(unused_for=Duration(seconds=days * 86_400))).tokens


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"client_ip": "10.1.2.3:80"}, "client_ip"),
        ({"client_ip": "office"}, "client_ip"),
        ({"certificate_sha256": b"x"}, "certificate_sha256"),
    ],
)
def test_evidence_that_is_none_is_refused_where_people_ask(admin: Party, fields: dict[str, object], wrong: str) -> None:
    token_id = admin.make().token.token_id
    request = pb.GetTokenRequest(token_id=token_id, as_verifier="admin", **fields)  # type: ignore[arg-type]
    assert _invalid(refused(admin.get, request)).fields == (wrong,)
