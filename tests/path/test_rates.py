"""How often one caller may issue, and ask for tokens that are no good."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.conftest import running_watchword
from tests.path.audit import awaited
from tests.path.party import Party, Refusal, administrator, grant, refusal_of, refused, unique
from tests.path.test_caching_verifier import Authority
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import token_service_pb2 as pb
from watchword.verifier import Active, Inactive, VerifierUnavailableError

BATCH_MAX = 1_000
CALLS = 100
FEW_ISSUES = {"WATCHWORD_ISSUES_PER_SECOND": "1"}
FEW_FAILURES = {"WATCHWORD_FAILED_VALIDATIONS_PER_SECOND": "1"}
"""Twice as many at once: whatever the machine is busy with, a hundred at a time are too many."""


def junk() -> str:
    """Well formed, and nobody's."""
    return new_token(new_token_id(2**47)).text.decode()


def flood(caller: Party) -> list[Refusal]:
    """What those of many Issues hear that are refused."""
    request = pb.IssueRequest(subject=unique(), audiences=["anyone"])
    calls = [caller.tokens.Issue.future(request, metadata=caller.metadata, timeout=60) for _ in range(CALLS)]
    errors = [error for call in calls if isinstance(error := call.exception(), grpc.RpcError)]
    assert 0 < len(errors) < CALLS
    return [refusal_of(error) for error in errors]


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_caller_that_issues_too_fast_is_told_when_it_may_again(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport, **FEW_ISSUES) as running:
        admin = administrator(running)
        team = admin.party("team", ["watchword.issue"], grants=[grant()])
        refusals = flood(team)
        assert {(one.code, one.reason) for one in refusals} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")}
        assert all(one.retry_seconds is not None and 0 < one.retry_seconds <= 1 for one in refusals)
        # Whoever knows no more than its id learns nothing of its limit, and others have limits of their own.
        forged = new_token(parse_token(team.secret).token_id).text.decode()
        assert refused(Party(team.channel, forged).issue, "any").reason == "TOKEN_INACTIVE"
        assert team.who_am_i().subject == "team"
        other = Party(admin.channel, running.admin_token)
        assert other.list_tokens(pb.ListTokensRequest()).tokens
        (event, *_) = awaited(admin, denied_only=True, actor="team")
        assert (event.action, event.outcome, event.actor_token_id) == ("issue", "RATE_LIMITED", team.token_id)


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_a_verifier_that_asks_for_too_much_junk_is_refused_before_anything_is_read(dsn: str, transport: str) -> None:
    with running_watchword(dsn, transport=transport, **FEW_FAILURES) as running:
        admin = administrator(running)
        verifier = admin.party("orders", ["watchword.validate"])
        good = admin.issue(unique(), ["orders"]).secret
        # Each of a batch counts, and the whole batch is answered.
        assert len(verifier.batch(*(junk() for _ in range(BATCH_MAX))).responses) == BATCH_MAX
        answer = refused(verifier.validate, good)
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert answer.retry_seconds is not None
        assert 0 < answer.retry_seconds <= 3
        # Another verifier's checks go on.
        assert admin.party("billing", ["watchword.validate"]).verdict(good) == "inactive"


def test_good_tokens_are_checked_without_any_limit(dsn: str) -> None:
    with running_watchword(dsn, **FEW_FAILURES) as running:
        admin = administrator(running)
        verifier = admin.party("orders", ["watchword.validate"])
        good = admin.issue(unique(), ["orders"]).secret
        assert {one.WhichOneof("verdict") for one in verifier.batch(*[good] * BATCH_MAX).responses} == {"active"}
        assert [verifier.verdict(good) for _ in range(20)] == ["active"] * 20
        assert verifier.verdict(good, "some.scope") == "insufficient"


@pytest.mark.parametrize("kind", ["aio", "sync"])
async def test_a_verifier_at_its_limit_admits_from_memory_and_is_unavailable_for_the_rest(dsn: str, kind: str) -> None:
    with running_watchword(dsn, **FEW_FAILURES) as running:
        authority = Authority(running.address, running.admin_token)
        async with authority.subject(kind) as subject:
            known, unknown = [await authority.issue("alice", "orders") for _ in range(2)]
            assert isinstance(await subject.check(known), Active)
            answers = await asyncio.gather(*(subject.check(junk()) for _ in range(CALLS)), return_exceptions=True)
            limited = [answer for answer in answers if isinstance(answer, VerifierUnavailableError)]
            assert {one.cause for one in limited} <= {"RESOURCE_EXHAUSTED"}
            assert len(limited) + answers.count(Inactive()) == CALLS
            assert isinstance(await subject.check(known), Active)
            # The debt lasts for two seconds at least; at one answer a second, a hundred more keep it up.
            more = await asyncio.gather(
                *(subject.check(junk()) for _ in range(CALLS)), subject.check(unknown), return_exceptions=True
            )
            assert any(isinstance(answer, VerifierUnavailableError) for answer in (*limited, *more))
            assert isinstance(await subject.check(known), Active)
