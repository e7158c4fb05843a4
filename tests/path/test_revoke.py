"""Revoke: what it ends, what it leaves alone, and that it is honest about both."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.conftest import Watchword
from tests.path.audit import awaited
from tests.path.party import Party, grant, refused, unique
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import audit_service_pb2 as audit_pb
from watchword.v1 import token_service_pb2 as pb


@dataclass(frozen=True)
class Tree:
    """A token, two it issued, and two that the first of those issued."""

    root: Party
    children: list[Party]
    leaves: list[pb.IssueResponse]

    def states(self, admin: Party) -> list[bool]:
        """Who is live: root, children, leaves."""
        ids = [self.root.token_id, *(child.token_id for child in self.children)]
        ids += [leaf.token.token_id for leaf in self.leaves]
        return [admin.record(token_id).state == pb.TOKEN_STATE_LIVE for token_id in ids]


@pytest.fixture
def tree(admin: Party) -> Tree:
    """Every token of it may be issued by its parent; the leaves may do nothing."""
    wide = grant("watchword.issue *", "*", "watchword *")
    root = admin.party(unique("root"), ["watchword.issue"], grants=[wide])
    children = [root.party(unique("child"), ["watchword.issue"], grants=[grant()]) for _ in range(2)]
    return Tree(root, children, [children[0].issue(unique("leaf")) for _ in range(2)])


def _unknown() -> str:
    return new_token(new_token_id(4_000_000_000_000)).text.decode()


def _revoke_events(admin: Party, **filters: str) -> list[audit_pb.AuditEvent]:
    return list(admin.events(audit_pb.ListEventsRequest(action="revoke", **filters)).events)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["token", "token_id"])
def test_revoked_token_is_inactive_even_if_unexpired(admin: Party, by: str) -> None:
    issued = admin.issue(unique())
    target = issued.secret if by == "token" else issued.token.token_id
    answer = admin.revoke(pb.RevokeRequest(**{by: target}, reason="LEAKED"))  # type: ignore[arg-type]
    assert (answer.revoked_count, answer.out_of_reach_count) == (1, 0)
    assert answer.propagation == pb.PROPAGATION_COMPLETE
    assert answer.effective_in.ToTimedelta().total_seconds() == 0
    record = admin.record(issued.token.token_id)
    assert (record.state, record.revoke_reason) == (pb.TOKEN_STATE_REVOKED, "LEAKED")
    assert record.HasField("revoked_at")


def test_revoking_again_changes_nothing_but_moves_the_position(admin: Party) -> None:
    issued = admin.issue(unique())
    first = admin.revoke(pb.RevokeRequest(token_id=issued.token.token_id, reason="first"))
    before = admin.record(issued.token.token_id)
    again = admin.revoke(pb.RevokeRequest(token_id=issued.token.token_id, reason="second"))
    assert (first.revoked_count, again.revoked_count) == (1, 0)
    assert again.position.number > first.position.number
    assert again.position.epoch == first.position.epoch
    assert admin.record(issued.token.token_id) == before


def test_every_revoke_that_names_a_token_moves_the_position(admin: Party) -> None:
    issued = admin.issue(unique())
    forged = new_token(parse_token(issued.secret).token_id).text.decode()
    unknown = _unknown()
    numbers = [
        admin.revoke(token=forged).position.number,
        admin.revoke(token=unknown).position.number,
        admin.revoke(token_id=unknown[3:25]).position.number,
        admin.revoke(token=issued.secret).position.number,
        admin.revoke(token=issued.secret).position.number,
    ]
    assert numbers == sorted(set(numbers))


def test_an_unknown_token_is_success(admin: Party) -> None:
    unknown = _unknown()
    for answer in (
        admin.revoke(token=unknown),
        admin.revoke(token_id=unknown[3:25]),
        admin.revoke(subject=unique()),
        admin.revoke(issued_by=unknown[3:25]),
    ):
        assert (answer.revoked_count, answer.out_of_reach_count) == (0, 0)
        assert answer.propagation == pb.PROPAGATION_COMPLETE


def test_a_wrong_secret_for_a_real_id_revokes_nothing(admin: Party) -> None:
    issued = admin.issue(unique())
    forged = new_token(parse_token(issued.secret).token_id).text.decode()
    answer, unknown = admin.revoke(token=forged), admin.revoke(token=_unknown())
    assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_LIVE
    # And is not told apart from an unknown token.
    for one in (answer, unknown):
        one.ClearField("position")
    assert answer.SerializeToString() == unknown.SerializeToString()


def test_a_wrong_secret_does_not_cascade(admin: Party, tree: Tree) -> None:
    forged = new_token(parse_token(tree.root.secret).token_id).text.decode()
    assert admin.revoke(pb.RevokeRequest(token=forged, cascade=True)).revoked_count == 0
    assert tree.states(admin) == [True] * 5


def test_a_malformed_token_is_refused_and_not_repeated(admin: Party) -> None:
    secret = admin.issue(unique()).secret
    answer = refused(admin.revoke, token=secret[:-1])
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("token",))
    assert secret[25:60] not in repr(answer)


@pytest.mark.parametrize("target", ["token", "token_id", "subject", "issued_by"])
def test_an_empty_target_is_refused(admin: Party, target: str) -> None:
    answer = refused(admin.revoke, pb.RevokeRequest(**{target: ""}))  # type: ignore[arg-type]
    assert (answer.code, answer.reason, answer.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        (target,),
    )


def test_no_target_is_refused(admin: Party) -> None:
    answer = refused(admin.revoke, pb.RevokeRequest(reason="everything"))
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("target",))


def test_by_subject_it_ends_every_token_of_that_very_subject(admin: Party) -> None:
    subject = unique("team/ann")
    mine = [admin.issue(subject).token.token_id for _ in range(3)]
    others = [admin.issue(other).token.token_id for other in (subject + ".x", subject[:-1])]
    answer = admin.revoke(subject=subject)
    assert answer.revoked_count == 3
    assert {admin.record(one).state for one in mine} == {pb.TOKEN_STATE_REVOKED}
    assert {admin.record(one).state for one in others} == {pb.TOKEN_STATE_LIVE}
    assert admin.revoke(subject=subject).revoked_count == 0


def test_by_issuer_it_ends_the_next_level_alone(admin: Party, tree: Tree) -> None:
    assert admin.revoke(issued_by=tree.root.token_id).revoked_count == 2
    assert tree.states(admin) == [True, False, False, True, True]


def test_by_issuer_with_cascade_it_ends_all_levels_below(admin: Party, tree: Tree) -> None:
    assert admin.revoke(pb.RevokeRequest(issued_by=tree.root.token_id, cascade=True)).revoked_count == 4
    assert tree.states(admin) == [True, False, False, False, False]


def test_without_cascade_children_live_on(admin: Party, tree: Tree) -> None:
    assert admin.revoke(token_id=tree.root.token_id).revoked_count == 1
    assert tree.states(admin) == [False, True, True, True, True]


def test_cascade_ends_the_tree_to_its_leaves(admin: Party, tree: Tree) -> None:
    assert admin.revoke(pb.RevokeRequest(token_id=tree.root.token_id, cascade=True)).revoked_count == 5
    assert tree.states(admin) == [False] * 5


def test_cascade_reaches_children_of_a_token_that_was_revoked_before(admin: Party, tree: Tree) -> None:
    admin.revoke(token_id=tree.root.token_id)
    assert admin.revoke(pb.RevokeRequest(token_id=tree.root.token_id, cascade=True)).revoked_count == 4
    assert tree.states(admin) == [False] * 5


def test_cascade_passes_through_a_revoked_token_in_the_middle(admin: Party, tree: Tree) -> None:
    admin.revoke(token_id=tree.children[0].token_id)
    admin.revoke(pb.RevokeRequest(token_id=tree.root.token_id, cascade=True))
    assert tree.states(admin) == [False] * 5


def test_by_subject_with_cascade_it_passes_through_a_revoked_token(admin: Party, tree: Tree) -> None:
    subject = admin.record(tree.root.token_id).subject
    admin.revoke(token_id=tree.root.token_id)
    admin.revoke(token_id=tree.children[0].token_id)
    admin.revoke(pb.RevokeRequest(subject=subject, cascade=True))
    assert tree.states(admin) == [False] * 5


@pytest.fixture
def team(admin: Party) -> Party:
    """May revoke what belongs to its own team."""
    return admin.party(unique("lead"), ["watchword.revoke"], grants=[grant("*", "team/*", "*")])


def test_a_single_token_out_of_reach_is_refused_and_lives_on(admin: Party, team: Party) -> None:
    issued = admin.issue(unique("other"))
    answer = refused(team.revoke, token_id=issued.token.token_id)
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_out_of_reach_in_scopes_audience_or_grants_too(admin: Party, team: Party) -> None:
    for scopes, audiences, grants in (
        (["watchword.read"], ["x"], []),
        ([], ["watchword"], []),
        ([], ["x"], [grant("watchword.issue", "team/ann", "x")]),
    ):
        issued = admin.issue("team/ann", audiences, scopes, grants=grants)
        assert refused(team.revoke, token_id=issued.token.token_id).reason == "GRANT_MISSING"
        assert admin.record(issued.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_by_subject_what_is_out_of_reach_is_counted_and_left(admin: Party, team: Party) -> None:
    subject = unique("team/")
    inside = admin.issue(subject, ["orders"])
    outside = admin.issue(subject, ["watchword"])
    answer = team.revoke(subject=subject)
    assert (answer.revoked_count, answer.out_of_reach_count) == (1, 1)
    assert admin.record(inside.token.token_id).state == pb.TOKEN_STATE_REVOKED
    assert admin.record(outside.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_cascade_of_a_presented_token_reaches_only_what_the_caller_may_end(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue", "watchword.revoke"], grants=[grant()])
    child = issuer.issue(unique())
    answer = issuer.revoke(pb.RevokeRequest(token=issuer.secret, cascade=True))
    assert (answer.revoked_count, answer.out_of_reach_count) == (2, 0)
    holder, parent = (
        admin.party(unique(), ["watchword.revoke"]),
        admin.party(unique(), ["watchword.issue"], grants=[grant()]),
    )
    child = parent.issue(unique())
    answer = holder.revoke(pb.RevokeRequest(token=parent.secret, cascade=True))
    assert (answer.revoked_count, answer.out_of_reach_count) == (1, 1)
    assert admin.record(child.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_cascade_of_a_presented_token_needs_the_scope(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant()])
    child = issuer.issue(unique())
    error = refused(issuer.revoke, pb.RevokeRequest(token=issuer.secret, cascade=True))
    assert error.reason == "SCOPE_MISSING"
    assert admin.record(child.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_cascade_from_a_token_out_of_reach_ends_nothing(admin: Party) -> None:
    parent = admin.party(unique(), ["watchword.issue"], grants=[grant()])
    child = parent.issue(unique())
    revoker = admin.party(unique(), ["watchword.revoke"], grants=[grant(subjects=child.token.subject)])
    error = refused(revoker.revoke, pb.RevokeRequest(token_id=parent.token_id, cascade=True))
    assert error.reason == "GRANT_MISSING"
    assert admin.record(child.token.token_id).state == pb.TOKEN_STATE_LIVE


def test_each_ended_token_has_an_event_of_its_own(admin: Party) -> None:
    subject = unique()
    issued = [admin.issue(subject) for _ in range(2)]
    admin.revoke(subject=subject, reason="LEAKED")
    for one in issued:
        (event,) = _revoke_events(admin, token_id=one.token.token_id)
        assert event.details["reason"] == "LEAKED"


def test_revoke_writes_its_audit_event_in_the_same_transaction(watchword: Watchword, admin: Party) -> None:
    issued = admin.issue(unique())
    admin.revoke(pb.RevokeRequest(token=issued.secret, reason="LEAKED"))
    (event,) = _revoke_events(admin, token_id=issued.token.token_id)
    assert (event.details["count"], event.details["reason"], event.actor) == ("1", "LEAKED", "admin")
    token_id = parse_token(issued.secret).token_id
    with psycopg.connect(watchword.dsn) as database:
        rows = database.execute(
            "select xmin::text from tokens where id = %(id)s union all"
            " select xmin::text from audit_events where token_id = %(id)s and action = 'revoke' union all"
            " select xmin::text from changes where token_id = %(id)s",
            {"id": token_id},
        ).fetchall()
    assert len(rows) == 3
    assert len(set(rows)) == 1


def test_a_refused_revoke_leaves_an_event_that_says_so(admin: Party, team: Party) -> None:
    issued = admin.issue(unique("other"))
    refused(team.revoke, token_id=issued.token.token_id)
    (event,) = awaited(admin, action="revoke", token_id=issued.token.token_id)
    assert (event.outcome, event.actor_token_id) == ("GRANT_MISSING", team.token_id)


def test_by_subject_the_event_names_the_subject(admin: Party) -> None:
    subject, actor = unique(), unique()
    admin.issue(subject)
    admin.party(actor, ["watchword.revoke"], grants=[grant()]).revoke(subject=subject)
    (event,) = (event for event in _revoke_events(admin, actor=actor) if not event.token_id)
    assert (event.token_id, event.details["subject"], event.details["count"]) == ("", subject, "1")


def test_the_reason_is_for_people_and_bounded(admin: Party) -> None:
    for reason in ("x" * 256, "a\nb", "a\u202eb"):
        answer = refused(admin.revoke, pb.RevokeRequest(subject=unique(), reason=reason))
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("reason",))


def test_an_issuer_that_was_revoked_issues_nothing_more(admin: Party) -> None:
    issuer = admin.party(unique(), ["watchword.issue"], grants=[grant()])
    admin.revoke(pb.RevokeRequest(token_id=issuer.token_id, cascade=True))
    assert refused(issuer.issue, unique()).reason == "TOKEN_INACTIVE"


def _all(before: Timestamp, **fields: object) -> pb.RevokeRequest:
    return pb.RevokeRequest(all=pb.RevokeAll(issued_before=before), **fields)  # type: ignore[arg-type]  # its fields


def test_everything_issued_before_an_instant_ends_within_reach(admin: Party) -> None:
    team = unique("team")
    lead = admin.party(f"{team}/lead", ["watchword.revoke"], grants=[grant("*", f"{team}/*", "* watchword")])
    before = [admin.issue(f"{team}/one"), admin.issue(f"{team}/two")]
    elsewhere = admin.issue(unique())
    # As the database's clock has it: the call that follows comes later.
    instant = admin.issue(f"{team}/three").token.created_at
    since = admin.issue(f"{team}/four")
    answer = lead.revoke(_all(instant, reason="BREAK-IN"))
    assert answer.revoked_count == 2
    # What the session's other tests issued.
    assert answer.out_of_reach_count > 0
    assert [admin.record(one.token.token_id).revoke_reason for one in before] == ["BREAK-IN", "BREAK-IN"]
    for token_id in (elsewhere.token.token_id, since.token.token_id, lead.token_id):
        assert admin.record(token_id).state == pb.TOKEN_STATE_LIVE
    (event,) = (event for event in _revoke_events(admin, actor=f"{team}/lead") if not event.token_id)
    assert event.details["count"] == "2"
    again = lead.revoke(_all(instant))
    assert (again.revoked_count, again.position.number >= answer.position.number) == (0, True)


def test_everything_takes_an_instant_that_is_not_in_the_future(admin: Party) -> None:
    nobody = admin.party(unique(), ["watchword.revoke"])
    ahead = Timestamp(seconds=4_000_000_000)
    for request, field in (
        (pb.RevokeRequest(all=pb.RevokeAll()), "all.issued_before"),
        (_all(ahead), "all.issued_before"),
        (_all(Timestamp(seconds=2**62)), "all.issued_before"),
    ):
        answer = refused(nobody.revoke, request)
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


def test_everything_takes_the_scope_to_revoke(admin: Party) -> None:
    reader = admin.party(unique(), ["watchword.read"], grants=[grant()])
    answer = refused(reader.revoke, _all(Timestamp(seconds=1)))
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
