"""Blocked subjects: what they have ends, and nobody issues or rotates anything for them."""

from __future__ import annotations

import grpc
import pytest

from tests.conftest import running_watchword
from tests.databases import Databases
from tests.path.party import Party, administrator, grant, refused, unique
from watchword.v1 import subject_service_pb2 as subject_pb
from watchword.v1 import token_service_pb2 as pb


def blocked_names(admin: Party) -> list[str]:
    """All of them, in small pages."""
    names: list[str] = []
    request = subject_pb.ListBlockedSubjectsRequest(page_size=2)
    while True:
        page = admin.blocked(request)
        names += [one.subject for one in page.subjects]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


def test_blocking_a_subject_ends_what_it_has_and_owns(admin: Party) -> None:
    subject = unique()
    own, other = admin.issue(subject, ["admin"]), admin.make()
    owned = admin.make(kind=pb.TOKEN_KIND_PERSONAL, owner=subject)
    done = admin.block(subject, "left the company")
    assert (done.revoked_count, done.out_of_reach_count) == (2, 0)
    assert done.propagation == pb.PROPAGATION_COMPLETE
    assert [admin.verdict(one.secret) for one in (own, owned, other)] == ["inactive", "inactive", "active"]
    assert admin.record(own.token.token_id).revoke_reason == "left the company"


def test_nothing_is_issued_for_a_blocked_subject_or_owner(admin: Party) -> None:
    subject = unique()
    admin.block(subject)
    for fields in ({"subject": subject}, {"kind": pb.TOKEN_KIND_PERSONAL, "owner": subject}):
        answer = refused(admin.make, **fields)
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SUBJECT_BLOCKED")
        assert dict(answer.metadata) == {"subject": subject}
    admin.make(subject=subject + "2")


def test_nothing_is_rotated_for_a_blocked_subject_whose_token_was_out_of_reach(admin: Party) -> None:
    subject = unique()
    made = admin.make(subject=subject, audiences=["watchword"], scopes=["watchword.read"])
    narrow = admin.party(unique(), ["watchword.revoke"], grants=[grant("*", subject, "*")])
    done = narrow.block(subject)
    assert (done.revoked_count, done.out_of_reach_count) == (0, 1)
    for party, request in (
        (Party(admin.channel, made.secret), pb.RotateRequest()),
        (admin, pb.RotateRequest(token_id=made.token.token_id)),
    ):
        assert refused(party.rotate, request).reason == "SUBJECT_BLOCKED"


def test_an_unblocked_subject_gets_tokens_again_and_none_of_the_old_ones(admin: Party) -> None:
    subject = unique()
    before = admin.issue(subject, ["admin"])
    admin.block(subject)
    assert admin.unblock(subject)
    assert not admin.unblock(subject)
    assert admin.verdict(before.secret) == "inactive"
    assert admin.verdict(admin.issue(subject, ["admin"]).secret) == "active"


def test_blocking_again_keeps_the_first_reason(admin: Party) -> None:
    subject = unique()
    admin.block(subject, "first")
    assert admin.block(subject, "second").revoked_count == 0
    request = subject_pb.ListBlockedSubjectsRequest(page_size=1000)
    found = [one for one in admin.blocked(request).subjects if one.subject == subject]
    assert [(one.reason, one.blocked_by) for one in found] == [("first", "admin")]
    assert found[0].HasField("blocked_at")


def test_blocked_subjects_are_listed_in_order_of_their_names(admin: Party) -> None:
    made = [unique(word) for word in ("c", "a", "b", "B", "a")]
    for subject in made:
        admin.block(subject)
    names = blocked_names(admin)
    assert names == sorted(names)
    assert set(made) <= set(names)


@pytest.mark.parametrize("subjects", ["nobody", "team/*"])
def test_a_subject_outside_every_grant_is_neither_blocked_nor_unblocked(admin: Party, subjects: str) -> None:
    subject = unique()
    revoker = admin.party(unique(), ["watchword.revoke"], grants=[grant("*", subjects, "*")])
    for act in (revoker.block, revoker.unblock):
        answer = refused(act, subject)
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert subject not in blocked_names(admin)


def test_the_last_administrator_stays_unless_forced(postgres: Databases) -> None:
    """By revocation, narrowing and block alike; nothing of it is done."""
    with postgres.fresh() as dsn, running_watchword(dsn) as watchword:
        admin = administrator(watchword)
        own = admin.who_am_i()
        attempts = (
            lambda: admin.revoke(token_id=own.token_id),
            lambda: admin.revoke(token=admin.secret),
            lambda: admin.revoke(subject=own.subject),
            lambda: admin.narrow(pb.NarrowRequest(token_id=own.token_id, remove_scopes=["watchword.*"])),
            lambda: admin.block(own.subject),
        )
        for attempt in attempts:
            answer = refused(attempt)
            assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR")
            assert "--force" in answer.message
        assert admin.who_am_i().state == pb.TOKEN_STATE_LIVE
        assert not admin.blocked(subject_pb.ListBlockedSubjectsRequest()).subjects
        # A preview ends nothing, so it is shown.
        assert admin.revoke(pb.RevokeRequest(token_id=own.token_id, dry_run=True)).revoked_count == 1
        other = admin.make(
            subject="other-admin",
            audiences=["watchword"],
            scopes=["watchword.*"],
            grants=[grant("* watchword.*", "*", "* watchword")],
        )
        assert admin.revoke(token_id=own.token_id).revoked_count == 1
        last = Party(admin.channel, other.secret)
        request = pb.RevokeRequest(token=last.secret, force=True)
        assert last.revoke(request).revoked_count == 1
        assert refused(last.who_am_i).reason == "TOKEN_INACTIVE"
