"""Validate and BatchValidate: the answer, and what it must not tell."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword
from tests.path.party import Party, refused, unique
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import token_service_pb2 as pb


@pytest.fixture
def verifier(admin: Party) -> Party:
    """A service that checks its callers."""
    return admin.party(unique("service"), ["watchword.validate"])


@pytest.fixture
def audience(admin: Party, verifier: Party) -> str:
    """The verifier's own subject."""
    return admin.record(verifier.token_id).subject


def forged(secret: str) -> str:
    """A well-formed token with the id of a real one and a secret of somebody's own."""
    return new_token(parse_token(secret).token_id).text.decode()


def invented(secret: str) -> str:
    """A well-formed token that ends when a real one does and was never issued."""
    return new_token(new_token_id(parse_token(secret).token_id.int >> 80)).text.decode()


def without_position(answer: pb.ValidateResponse) -> bytes:
    """The answer's bytes apart from where it was read."""
    answer.ClearField("position")
    return answer.SerializeToString(deterministic=True)


def test_an_active_token_comes_with_all_a_verifier_needs(admin: Party, verifier: Party, audience: str) -> None:
    scope = f"{unique('s')}.read"
    admin.register(scope)
    issued = admin.issue("ann", [audience], [scope], ttl=Duration(seconds=100), metadata={"k": "v"})
    answer = verifier.validate(issued.secret, scope)
    assert answer.WhichOneof("verdict") == "active"
    active = answer.active
    assert (active.token_id, active.subject) == (issued.token.token_id, "ann")
    assert (list(active.scopes), list(active.audiences), dict(active.metadata)) == ([scope], [audience], {"k": "v"})
    assert 0 < active.remaining.seconds <= 100
    # Never kept longer than it lives.
    assert answer.cacheable_for == active.remaining
    assert len(answer.position.epoch) == 16


def test_a_long_lived_token_is_cacheable_for_a_bounded_time(admin: Party, verifier: Party, audience: str) -> None:
    answer = verifier.validate(admin.issue(unique(), [audience]).secret)
    assert 0 < answer.cacheable_for.seconds <= 3600 < answer.active.remaining.seconds


def test_missing_scopes_are_named_in_the_order_asked(admin: Party, verifier: Party, audience: str) -> None:
    stem = unique("s")
    admin.register(f"{stem}.b")
    issued = admin.issue(unique(), [audience], [f"{stem}.b"])
    answer = verifier.validate(issued.secret, f"{stem}.c", f"{stem}.b", f"{stem}.a")
    assert answer.WhichOneof("verdict") == "insufficient"
    assert list(answer.insufficient.missing_scopes) == [f"{stem}.c", f"{stem}.a"]
    assert answer.insufficient.token.token_id == issued.token.token_id


@pytest.mark.parametrize(
    ("held", "required", "verdict"),
    [
        ("{}.*", "{}.read", "active"),
        ("{}.*", "{}.orders.read", "active"),
        ("{}.*", "{}", "insufficient"),
        ("{}.*", "{}x.read", "insufficient"),
        ("{}.orders.*", "{}.read", "insufficient"),
        ("*", "{}.read", "active"),
        ("*", "watchword.read", "insufficient"),
        ("*", "watchword", "insufficient"),
        ("watchword.*", "watchword.read", "active"),
        ("watchword.*", "{}.read", "insufficient"),
        ("{}.read", "{}.read.all", "insufficient"),
    ],
)
def test_wildcards_cover_what_lies_below_them(
    admin: Party, verifier: Party, audience: str, held: str, required: str, verdict: str
) -> None:
    stem = unique("s")
    admin.register(f"{stem}.read", f"{stem}.orders.read")
    issued = admin.issue(unique(), [audience], [held.format(stem)])
    assert verifier.verdict(issued.secret, required.format(stem)) == verdict


def test_the_audience_is_the_verifiers_own_subject(admin: Party, verifier: Party, audience: str) -> None:
    for audiences, verdict in (
        ([audience], "active"),
        (["other", audience], "active"),
        (["*"], "active"),
        (["other"], "inactive"),
        ([audience.upper()], "inactive"),
        ([audience + ".part"], "inactive"),
        (["watchword"], "inactive"),
    ):
        assert verifier.verdict(admin.issue(unique(), audiences).secret) == verdict, audiences


def test_two_verifiers_get_different_answers_about_one_token_in_one_batch(admin: Party) -> None:
    one, other = (admin.party(unique("service"), ["watchword.validate"]) for _ in range(2))
    issued = admin.issue(unique(), [admin.record(one.token_id).subject])
    asked = pb.ValidateRequest(token=issued.secret)
    # At once, so that they share a lookup.
    calls = [
        party.tokens.Validate.future(asked, metadata=party.metadata, timeout=10)
        for _ in range(8)
        for party in (one, other)
    ]
    verdicts = [call.result().WhichOneof("verdict") for call in calls]
    assert verdicts == ["active", "inactive"] * 8


REFUSED: dict[str, Callable[[Party, str], str]] = {
    "unknown": lambda admin, audience: invented(admin.issue(unique(), [audience]).secret),
    "wrong secret": lambda admin, audience: forged(admin.issue(unique(), [audience]).secret),
    "malformed": lambda admin, audience: admin.issue(unique(), [audience]).secret[:-1] + "_",
    "empty": lambda admin, audience: "",
    "another audience": lambda admin, audience: admin.issue(unique(), ["other"]).secret,
    "revoked": lambda admin, audience: _revoked(admin, audience),
    "wrong secret of a revoked one": lambda admin, audience: forged(_revoked(admin, audience)),
    "wrong secret of another audience's": lambda admin, audience: forged(admin.issue(unique(), ["other"]).secret),
}


def _revoked(admin: Party, audience: str) -> str:
    issued = admin.issue(unique(), [audience])
    admin.revoke(token_id=issued.token.token_id)
    return issued.secret


@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_every_reason_for_no_looks_alike(admin: Party, verifier: Party, audience: str, reason: str) -> None:
    answer = verifier.validate(REFUSED[reason](admin, audience))
    expected = pb.ValidateResponse(inactive=pb.InactiveToken(), cacheable_for=Duration(seconds=60))
    assert without_position(answer) == expected.SerializeToString(deterministic=True)


def test_wrong_secret_and_unknown_id_look_alike(admin: Party, verifier: Party, audience: str) -> None:
    real = admin.issue(unique(), [audience], metadata={"secret": "plan"})
    guessed, unknown = forged(real.secret), invented(real.secret)
    one, other = verifier.validate(guessed), verifier.validate(unknown)
    assert one.WhichOneof("verdict") == other.WhichOneof("verdict") == "inactive"
    assert without_position(one) == without_position(other)
    batch = verifier.batch(guessed, unknown, real.secret)
    assert without_position(batch.responses[0]) == without_position(batch.responses[1])
    # Also with scopes asked for, and also where the two share a lookup with the real one.
    assert without_position(verifier.validate(guessed, "a.b")) == without_position(verifier.validate(unknown, "a.b"))
    assert batch.responses[2].WhichOneof("verdict") == "active"


def test_a_token_is_inactive_once_it_expired(
    watchword: Watchword, admin: Party, verifier: Party, audience: str
) -> None:
    issued = admin.issue(unique(), [audience], ttl=Duration(seconds=1))
    # Bounded by the life of a second, judged by the database's clock: ask until it says so.
    answers = [verifier.validate(issued.secret)]
    while answers[-1].WhichOneof("verdict") == "active":
        assert answers[-1].active.remaining.ToTimedelta().total_seconds() > 0
        assert answers[-1].active.remaining.seconds <= 1
        answers.append(verifier.validate(issued.secret))
    assert answers[-1].WhichOneof("verdict") == "inactive"
    assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_EXPIRED


def test_a_batch_answers_each_in_its_order_at_one_position(admin: Party, verifier: Party, audience: str) -> None:
    good = [admin.issue(unique(), [audience]) for _ in range(3)]
    asked = [good[2].secret, "junk", good[0].secret, good[2].secret, invented(good[0].secret), good[1].secret]
    answers = verifier.batch(*asked).responses
    assert [answer.WhichOneof("verdict") for answer in answers] == [
        "active",
        "inactive",
        "active",
        "active",
        "inactive",
        "active",
    ]
    assert [answers[at].active.token_id for at in (0, 2, 3, 5)] == [good[at].token.token_id for at in (2, 0, 2, 1)]
    assert len({answer.position.SerializeToString() for answer in answers}) == 1


def test_a_batch_of_a_thousand_is_answered_and_one_more_is_refused(verifier: Party) -> None:
    assert len(verifier.batch(*["junk"] * 1000).responses) == 1000
    answer = refused(verifier.batch, *["junk"] * 1001)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("requests",))
    assert refused(verifier.batch).fields == ("requests",)


def test_a_wildcard_is_no_required_scope(admin: Party, verifier: Party, audience: str) -> None:
    secret = admin.issue(unique(), [audience], ["*"]).secret
    answer = refused(verifier.validate, secret, "orders.read", "orders.*")
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("required_scopes[1]",))
    request = pb.BatchValidateRequest(
        requests=[pb.ValidateRequest(token=secret), pb.ValidateRequest(token=secret, required_scopes=["*"])]
    )
    answer = refused(lambda: verifier.tokens.BatchValidate(request, metadata=verifier.metadata, timeout=10))
    assert answer.fields == ("requests[1].required_scopes[0]",)


def test_a_verifier_may_check_its_own_token_only_as_anybodys(admin: Party, verifier: Party) -> None:
    # Its audience is `watchword`, and the verifier is not Watchword.
    assert verifier.verdict(verifier.secret) == "inactive"
