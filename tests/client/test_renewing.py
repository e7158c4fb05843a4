"""Tokens that renew themselves, in both stacks, against a service that fails in every way: nobody ever lacks one."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from tests.client.renewers import STACKS, Caller, Kept, from_file, renewing
from tests.client.rotating import Refusal, Rotating, serve_rotating
from tests.client.subjects import until
from watchword import TokenSourceError, aio, sync
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")

pytestmark = pytest.mark.parametrize("stack", STACKS)


@pytest.fixture
def service() -> Rotating:
    return Rotating()


@pytest.fixture
def file(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "orders.token")


async def test_it_goes_on_and_on_and_no_call_is_without_a_good_token(stack: str, service: Rotating, file: Kept) -> None:
    first = service.make()
    file.put(first.secret)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().renewals_count >= 3)
            status = token.status()
    lineage = service.lineage(first)
    assert caller.failed == 0
    assert (status.is_renewing, status.last_error, status.is_unsaved) == (True, None, False)
    assert status.token_id in [made.token_id for made in lineage]
    assert status.renews_at is not None
    assert status.renewed_at is not None
    assert status.ends_at is not None
    assert status.renewed_at < status.renews_at < status.ends_at
    assert file.get() == lineage[-1].secret
    assert file.mode == 0o600
    assert file.beside == []
    assert len({request.request_id for request in service.requests}) == len(lineage) - 1 == service.count("Rotate")


async def test_before_it_is_started_and_after_it_is_closed_it_gives_what_is_in_the_file(
    stack: str, service: Rotating, file: Kept
) -> None:
    renewer = from_file(stack, file)
    with pytest.raises(TokenSourceError, match="No such file"):
        renewer.token.token()
    file.put(service.make(1_000.0).secret)
    assert renewer.token.token() == file.get()
    assert renewer.token.status().token_id == ""
    with serve_rotating(service) as address:
        async with renewing(renewer, address):
            await until(lambda: service.count("WhoAmI"))
        assert renewer.token.token() == file.get()
    assert service.count("Rotate") == 0


async def test_others_who_read_the_file_come_along(stack: str, service: Rotating, file: Kept) -> None:
    file.put(service.make().secret)
    siblings = [from_file(one, file) for one in ("aio", "sync", "aio", "sync")]
    with serve_rotating(service) as address:
        renewer = from_file(stack, file)
        async with renewing(renewer, address) as token:
            for sibling in siblings:
                await sibling.start(address)
            tokens = [token, *(sibling.token for sibling in siblings)]
            async with Caller(service, *tokens) as caller:
                await until(lambda: sum(one.status().renewals_count for one in tokens) >= 5)
            for sibling in siblings:
                await sibling.close()
    assert caller.failed == 0
    count = sum(one.status().renewals_count for one in tokens)
    assert service.count("Rotate") <= count + 1, "they do not fight: each rotation is made once"


# Outages


async def test_an_outage_is_survived_and_is_no_storm(
    stack: str, service: Rotating, file: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    file.put(service.make(60.0, age_seconds=30.0).secret)
    outage = True
    service.refuse = lambda method: UNAVAILABLE if outage and method == "Rotate" else None
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: service.count("Rotate") >= 3)
            assert token.status().last_error == "DATABASE_UNAVAILABLE"
            assert token.status().is_renewing
            outage = False
            await until(lambda: token.status().renewals_count)
    assert caller.failed == 0
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, "once when it begins, once when it is over"


async def test_a_service_that_is_not_there_is_waited_for(stack: str, service: Rotating, file: Kept) -> None:
    file.put(service.make(60.0).secret)
    with serve_rotating(service) as address:
        pass
    renewer = from_file(stack, file)
    async with renewing(renewer, address) as token:
        await until(lambda: token.status().last_error == "UNAVAILABLE")
        with serve_rotating(service, address):
            await until(lambda: token.status().renewals_count)


async def test_an_answer_that_was_lost_is_asked_for_again_by_the_same_request(
    stack: str, service: Rotating, file: Kept
) -> None:
    file.put(service.make().secret)
    lost = Refusal(grpc.StatusCode.UNAVAILABLE, after=True)
    service.refuse = lambda method: lost if method == "Rotate" and service.count("Rotate") <= 2 else None
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().renewals_count)
    assert caller.failed == 0
    assert len({request.request_id for request in service.requests[:3]}) == 1
    assert [service.is_live(secret) for secret in service.secrets[1:3]] == [False, False], "the lost ones are dead"


async def test_an_answer_without_a_token_replaces_nothing_and_is_asked_for_again(
    stack: str, service: Rotating, file: Kept
) -> None:
    first = service.make()
    file.put(first.secret)
    service.secret_of = lambda made: "" if service.count("Rotate") == 1 else made.secret
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token, Caller(service, token) as caller:
            await until(lambda: token.status().last_error == "ANSWER_INVALID")
            assert file.get() == first.secret
            await until(lambda: token.status().renewals_count)
    assert caller.failed == 0
    assert service.requests[0].request_id == service.requests[1].request_id


async def test_what_the_service_asks_to_wait_is_waited(stack: str, service: Rotating, file: Kept) -> None:
    file.put(service.make(1_000.0, age_seconds=900.0).secret)
    limited = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_seconds=300.0)
    service.refuse = lambda method: limited
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error == "RATE_LIMITED")
            renews_at, ends_at = token.status().renews_at, token.status().ends_at
    assert renews_at is not None
    assert ends_at is not None
    assert (renews_at - ends_at).total_seconds() > 190, "the token ends in 100 s"


# Refusals


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "SUBJECT_BLOCKED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_NOT_LIVE"),
        (grpc.StatusCode.UNIMPLEMENTED, ""),
        (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    ],
)
async def test_a_refusal_ends_the_attempts_until_the_file_holds_another_token(
    stack: str, service: Rotating, file: Kept, code: grpc.StatusCode, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = service.make(6_000.0, age_seconds=5_000.0)
    file.put(first.secret)
    service.refuse = lambda method: Refusal(code, reason)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file, grace_seconds=5), address) as token:
            await until(lambda: token.status().last_error)
            status = token.status()
            assert (status.is_renewing, status.renews_at) == (False, None)
            assert status.last_error == (reason or code.name)
            assert token.token() == first.secret
            calls = len(service.calls)
            service.refuse = lambda method: None
            second = service.make()
            file.put(second.secret)
            await until(lambda: token.status().is_renewing)
            assert len(service.calls) <= calls + 1
            await until(lambda: token.status().renewals_count)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


async def test_a_token_that_does_not_reach_the_service_is_found_out_at_the_start(
    stack: str, service: Rotating, file: Kept
) -> None:
    file.put(Rotating().make(1_000.0).secret)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error)
            assert token.status().last_error == "TOKEN_INACTIVE"
            assert "does not name the audience watchword" in token.status().reason


async def test_a_channel_that_bears_another_token_does_not_have_that_one_rotated(
    stack: str, service: Rotating, file: Kept
) -> None:
    mine, other = service.make(), service.make()
    file.put(mine.secret)
    renewing_token = from_file(stack, file).token
    with serve_rotating(service) as address:
        if stack == "aio":
            async with aio.connect(address, token=other.secret) as channel, renewing_token.renewing(channel):
                await until(lambda: renewing_token.status().last_error)
        else:
            with sync.connect(address, token=other.secret) as blocking, renewing_token.renewing(blocking):
                await until(lambda: renewing_token.status().last_error)
    assert renewing_token.status().last_error == "SCOPE_MISSING"
    assert "bears another token" in renewing_token.status().reason
    assert other.successor is None
    assert file.get() == mine.secret


async def test_a_token_that_a_stranger_rotated_serves_to_its_end_and_both_are_named(
    stack: str, service: Rotating, file: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    service.grace_seconds = 500.0
    first = service.make(1_000.0)
    file.put(first.secret)
    with serve_rotating(service) as address:
        with sync.connect(address, token=first.secret) as channel:
            stolen = TokenServiceStub(channel).Rotate(pb.RotateRequest())
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error)
            status = token.status()
            assert (status.is_renewing, status.last_error) == (False, "TOKEN_ROTATED")
            assert token.token() == first.secret
            assert service.is_live(stolen.secret), "it is not taken from whoever has it"
            assert file.beside == [], "no note that would have others try"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert first.token_id in warning
    assert stolen.token.token_id in warning
    assert "leaked" in warning


async def test_a_session_is_left_to_its_hard_end(stack: str, service: Rotating, file: Kept) -> None:
    file.put(service.make(2.0, kind=pb.TOKEN_KIND_SESSION).secret)
    with serve_rotating(service) as address:
        async with renewing(from_file(stack, file), address) as token:
            await until(lambda: token.status().last_error == "SESSION")
            await until(lambda: not service.is_live(token.token()))
    assert service.count("Rotate") == 0
