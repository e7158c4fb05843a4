"""Personal tokens: they belong to an owner, are listed with what the owner has, and end with it."""

from __future__ import annotations

from tests.path.party import Party, grant, refused, unique
from watchword.v1 import token_service_pb2 as pb


def personal(admin: Party, owner: str, subject: str = "") -> pb.IssueResponse:
    return admin.make(subject=subject or unique("tool"), kind=pb.TOKEN_KIND_PERSONAL, owner=owner)


def test_a_personal_token_has_an_owner(admin: Party) -> None:
    owner = unique("ann")
    made = personal(admin, owner)
    for token in (made.token, admin.record(made.token.token_id)):
        assert (token.kind, token.owner) == (pb.TOKEN_KIND_PERSONAL, owner)
    assert admin.verdict(made.secret) == "active"


def test_an_owners_tokens_are_listed_by_owner(admin: Party) -> None:
    owner = unique("ann")
    made = [personal(admin, owner), personal(admin, owner)]
    personal(admin, unique("bob"))
    admin.issue(owner)
    found = admin.list_tokens(pb.ListTokensRequest(owner=owner)).tokens
    assert {token.token_id for token in found} == {one.token.token_id for one in made}


def test_revoking_a_subject_ends_what_it_owns(admin: Party) -> None:
    owner = unique("ann")
    owned, own, other = personal(admin, owner), admin.issue(owner, ["admin"]), personal(admin, unique("bob"))
    assert admin.revoke(subject=owner).revoked_count == 2
    assert [admin.verdict(one.secret) for one in (owned, own, other)] == ["inactive", "inactive", "active"]


def test_revoking_the_tokens_own_subject_ends_it_too(admin: Party) -> None:
    made = personal(admin, unique("ann"))
    assert admin.revoke(subject=made.token.subject).revoked_count == 1


def test_the_owner_has_to_lie_within_the_same_grant_as_the_subject(admin: Party) -> None:
    issuer = admin.party(
        unique(),
        ["watchword.issue"],
        grants=[grant(subjects="tools/*", audiences="*"), grant(subjects="people/*", audiences="*")],
    )
    answer = refused(issuer.make, subject="tools/a", kind=pb.TOKEN_KIND_PERSONAL, owner="people/ann")
    assert answer.reason == "GRANT_MISSING"
    wide = admin.party(unique(), ["watchword.issue"], grants=[grant(subjects="tools/* people/*")])
    made = wide.make(subject="tools/a", audiences=["orders"], kind=pb.TOKEN_KIND_PERSONAL, owner="people/ann")
    assert made.token.owner == "people/ann"


def test_a_token_whose_owner_lies_outside_the_grants_is_left_alone(admin: Party) -> None:
    owner = unique("ann")
    made = personal(admin, owner, "tools/a")
    revoker = admin.party(
        unique(), ["watchword.revoke", "watchword.issue"], grants=[grant(subjects="tools/*", audiences="*")]
    )
    assert refused(revoker.revoke, token_id=made.token.token_id).reason == "GRANT_MISSING"
    assert refused(revoker.rotate, pb.RotateRequest(token_id=made.token.token_id)).reason == "GRANT_MISSING"
    assert admin.verdict(made.secret) == "active"


def test_a_successor_has_the_same_owner(admin: Party) -> None:
    owner = unique("ann")
    made = personal(admin, owner)
    rotated = admin.rotate(pb.RotateRequest(token_id=made.token.token_id))
    assert (rotated.token.kind, rotated.token.owner) == (pb.TOKEN_KIND_PERSONAL, owner)
    assert admin.revoke(subject=owner).revoked_count == 2
    assert admin.verdict(rotated.secret) == "inactive"
