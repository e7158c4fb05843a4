"""Tokens that are good from some networks, or with one certificate, only: issued, judged, and used at Watchword."""

from __future__ import annotations

import grpc
import pytest

from tests.path.party import Party, refused, unique
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import token_service_pb2 as pb

CERTIFICATE = bytes(range(32))
NETWORKS = ["10.1.0.0/16", "2001:db8::/32"]
INACTIVE_SECONDS = 60


def reason(admin: Party, token_id: str, *, client_ip: str = "", certificate_sha256: bytes = b"") -> str:
    """Why the administrator, as a verifier, would be told what it would be told."""
    request = pb.GetTokenRequest(
        token_id=token_id, as_verifier="admin", client_ip=client_ip, certificate_sha256=certificate_sha256
    )
    return pb.VerdictReason.Name(admin.get(request).explanation.reason)


def test_bindings_are_kept_as_they_were_given(admin: Party) -> None:
    made = admin.make(allowed_networks=NETWORKS, certificate_sha256=CERTIFICATE)
    for token in (made.token, admin.record(made.token.token_id)):
        assert token.allowed_networks == NETWORKS
        assert token.certificate_sha256 == CERTIFICATE


def test_networks_are_kept_in_their_one_form_and_once(admin: Party) -> None:
    made = admin.make(allowed_networks=["2001:DB8:0::/32", "10.1.0.0/16", "2001:db8::/32", "::ffff:10.9.0.0/112"])
    assert made.token.allowed_networks == ["2001:db8::/32", "10.1.0.0/16", "10.9.0.0/16"]


@pytest.mark.parametrize(
    ("client_ip", "verdict"),
    [
        ("10.1.2.3", "active"),
        ("2001:db8::9", "active"),
        ("::ffff:10.1.2.3", "active"),
        ("10.2.0.1", "inactive"),
        ("2001:db9::", "inactive"),
        ("", "inactive"),
        ("10.1.2.3:80", "inactive"),
        ("somewhere", "inactive"),
    ],
)
def test_a_token_bound_to_networks_is_judged_by_the_address_that_the_verifier_names(
    admin: Party, client_ip: str, verdict: str
) -> None:
    made = admin.make(allowed_networks=NETWORKS)
    assert admin.validate(made.secret, client_ip=client_ip).WhichOneof("verdict") == verdict
    expected = "VERDICT_REASON_ACTIVE" if verdict == "active" else "VERDICT_REASON_NETWORK_MISMATCH"
    if client_ip in ("", "10.1.2.3", "10.2.0.1"):
        assert reason(admin, made.token.token_id, client_ip=client_ip) == expected


@pytest.mark.parametrize(
    ("digest", "verdict"), [(CERTIFICATE, "active"), (bytes(32), "inactive"), (b"", "inactive"), (b"x", "inactive")]
)
def test_a_token_bound_to_a_certificate_is_judged_by_the_one_that_the_verifier_saw(
    admin: Party, digest: bytes, verdict: str
) -> None:
    made = admin.make(certificate_sha256=CERTIFICATE)
    assert admin.validate(made.secret, certificate_sha256=digest).WhichOneof("verdict") == verdict
    if len(digest) != 1:
        expected = "VERDICT_REASON_ACTIVE" if verdict == "active" else "VERDICT_REASON_CERTIFICATE_MISMATCH"
        assert reason(admin, made.token.token_id, certificate_sha256=digest) == expected


def test_a_bound_token_judged_here_is_never_cached(admin: Party) -> None:
    """The answer is about one call's address: the next one comes from elsewhere."""
    made = admin.make(allowed_networks=NETWORKS)
    good, bad = admin.validate(made.secret, client_ip="10.1.2.3"), admin.validate(made.secret, client_ip="10.2.0.1")
    lacking = admin.validate(made.secret, "some.scope", client_ip="10.1.2.3")
    for answer in (good, bad, lacking):
        assert answer.cacheable_for.ToTimedelta().total_seconds() == 0
    assert lacking.WhichOneof("verdict") == "insufficient"
    assert not good.active.HasField("bindings")


def test_a_verifier_that_enforces_bindings_is_told_them_and_may_cache(admin: Party) -> None:
    made = admin.make(allowed_networks=NETWORKS, certificate_sha256=CERTIFICATE)
    answer = admin.validate(made.secret, client_ip="192.0.2.1", enforces_bindings=True)
    assert answer.active.bindings.allowed_networks == NETWORKS
    assert answer.active.bindings.certificate_sha256 == CERTIFICATE
    assert answer.cacheable_for.seconds > 0
    lacking = admin.validate(made.secret, "some.scope", enforces_bindings=True)
    assert lacking.insufficient.token.bindings == answer.active.bindings


def test_a_token_without_bindings_has_none_to_enforce(admin: Party) -> None:
    answer = admin.validate(admin.make().secret, enforces_bindings=True)
    assert not answer.active.HasField("bindings")
    assert answer.cacheable_for.seconds > 0


def test_in_a_batch_each_token_is_judged_by_its_own_request(admin: Party) -> None:
    secret = admin.make(allowed_networks=NETWORKS).secret
    requests = [
        pb.ValidateRequest(token=secret, client_ip="10.1.2.3"),
        pb.ValidateRequest(token=secret, client_ip="192.0.2.1"),
        pb.ValidateRequest(token=secret, enforces_bindings=True),
        pb.ValidateRequest(token=secret),
    ]
    answers = admin.tokens.BatchValidate(
        pb.BatchValidateRequest(requests=requests), metadata=admin.metadata, timeout=20
    ).responses
    assert [answer.WhichOneof("verdict") for answer in answers] == ["active", "inactive", "active", "inactive"]


@pytest.mark.parametrize("enforces_bindings", [False, True])
def test_a_wrong_secret_of_a_bound_token_looks_like_an_unknown_token(admin: Party, enforces_bindings: bool) -> None:
    made = admin.make(allowed_networks=NETWORKS)
    guess = new_token(parse_token(made.secret).token_id).text.decode()
    unknown = new_token(new_token_id(0)).text.decode()
    answers = [
        admin.validate(token, client_ip=client_ip, enforces_bindings=enforces_bindings)
        for token in (guess, unknown)
        for client_ip in ("10.1.2.3", "192.0.2.1")
    ]
    assert {answer.WhichOneof("verdict") for answer in answers} == {"inactive"}
    assert {answer.cacheable_for.seconds for answer in answers} == {INACTIVE_SECONDS}


def test_a_bound_callers_token_is_good_from_there_only(admin: Party) -> None:
    """Over TCP, from this machine."""
    here = admin.make(audiences=["watchword"], scopes=["watchword.read"], allowed_networks=["127.0.0.0/8", "::1/128"])
    elsewhere = admin.make(audiences=["watchword"], scopes=["watchword.read"], allowed_networks=["192.0.2.0/24"])
    with_certificate = admin.make(audiences=["watchword"], scopes=["watchword.read"], certificate_sha256=CERTIFICATE)
    listed = pb.ListTokensRequest(subject=unique())
    assert not Party(admin.channel, here.secret).list_tokens(listed).tokens
    for made in (elsewhere, with_certificate):
        answer = refused(Party(admin.channel, made.secret).list_tokens, listed)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")
        # Also where no scope is needed.
        assert refused(Party(admin.channel, made.secret).who_am_i).reason == "TOKEN_INACTIVE"


def test_a_forwarded_address_is_nobodys_word_where_no_proxy_is_trusted(admin: Party) -> None:
    made = admin.make(audiences=["watchword"], scopes=["watchword.read"], allowed_networks=["192.0.2.0/24"])
    stranger = Party(admin.channel, made.secret)
    metadata = (*stranger.metadata, ("x-forwarded-for", "192.0.2.1"))
    answer = refused(stranger.tokens.WhoAmI, pb.WhoAmIRequest(), metadata=metadata, timeout=20)
    assert answer.reason == "TOKEN_INACTIVE"
