"""What takes something from a token waits, as Revoke does, until no verifier goes by what it had."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, unique
from tests.path.watcher import Watcher
from watchword.token import parse_token_id
from watchword.v1 import subject_service_pb2 as subject_pb
from watchword.v1 import token_service_pb2 as pb

LEASE_SECONDS = 30.0
"""Longer than a call's deadline: nothing is complete because a lease ran out."""
Act = Callable[[Party, pb.IssueResponse, bool], Any]


def rotate(admin: Party, made: pb.IssueResponse, wait: bool) -> pb.RotateResponse:
    """Without a grace, or with one."""
    request = pb.RotateRequest(token_id=made.token.token_id, grace=Duration(seconds=0 if wait else 60))
    return admin.rotate(request)


def narrow(admin: Party, made: pb.IssueResponse, wait: bool) -> pb.NarrowResponse:
    request = pb.NarrowRequest(token_id=made.token.token_id, remove_scopes=["watchword.read"], no_wait=not wait)
    return admin.narrow(request)


def block(admin: Party, made: pb.IssueResponse, wait: bool) -> subject_pb.BlockSubjectResponse:
    request = subject_pb.BlockSubjectRequest(subject=made.token.subject, no_wait=not wait)
    answer: subject_pb.BlockSubjectResponse = admin.subjects.BlockSubject(
        request, metadata=admin.metadata, timeout=LEASE_SECONDS - 5
    )
    return answer


ACTS = pytest.mark.parametrize("act", [rotate, narrow, block])


@ACTS
def test_the_answer_waits_for_the_verifiers_acknowledgement(admin: Party, act: Act) -> None:
    made = admin.make(scopes=["watchword.read"])
    verifier = admin.party(unique(), ["watchword.validate"])
    with Watcher(verifier, lease_seconds=LEASE_SECONDS) as watcher, ThreadPoolExecutor(1) as pool:
        watcher.attach()
        answering = pool.submit(act, admin, made, True)
        changed = watcher.expect("changes").changes.changes
        assert [list(change.token_ids) for change in changed] == [[parse_token_id(made.token.token_id).bytes]]
        assert not answering.done()
        watcher.acknowledge()
        answer = answering.result()
        watcher.leave()
    assert answer.propagation == pb.PROPAGATION_COMPLETE
    assert answer.effective_in == Duration()


@ACTS
def test_whoever_does_not_wait_is_told_how_long_it_may_take(admin: Party, act: Act) -> None:
    made = admin.make(scopes=["watchword.read"])
    verifier = admin.party(unique(), ["watchword.validate"])
    with Watcher(verifier, lease_seconds=LEASE_SECONDS) as watcher:
        watcher.attach()
        answer = act(admin, made, False)
        watcher.changes(answer.position.number)
        watcher.acknowledge()
        watcher.leave()
    assert answer.propagation == pb.PROPAGATION_PENDING
    assert answer.effective_in.seconds > 0
