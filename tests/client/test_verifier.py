"""The remote verifiers: what is asked, how it is batched, and that every failure refuses."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from functools import partial
from typing import Any

import grpc
import pytest

from tests.client.batches import Batches, arrival
from tests.client.echo import SECONDS_MAX
from tests.client.subjects import until
from watchword import VerifierUnavailableError, aio, sync
from watchword.testing import FakeAuthority, serve
from watchword.v1 import token_service_pb2 as pb
from watchword.verifier import Active, Answer, Inactive, Insufficient, Position

READ = ("orders.read",)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
def own_token(authority: FakeAuthority) -> str:
    return authority.issue("orders", scopes=["watchword.validate"], audiences=["watchword"])


@pytest.fixture
def batches() -> Batches:
    return Batches()


def some_tokens(authority: FakeAuthority, count: int) -> list[str]:
    return [authority.issue("alice") for _ in range(count)]


def subject(verdict: object) -> str:
    assert isinstance(verdict, Active)
    return verdict.identity.subject


async def test_the_three_verdicts_over_the_wire(authority: FakeAuthority, own_token: str) -> None:
    good = authority.issue("alice", scopes=["orders.*"], audiences=["orders"], metadata={"team": "red"})
    revoked = authority.issue("alice", scopes=["orders.*"])
    authority.revoke(revoked)
    elsewhere = authority.issue("alice", scopes=["orders.*"], audiences=["billing"])
    with serve(authority) as address:
        async with aio.connect(address, token=own_token) as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
            active = await verifier.check(good, READ)
            found = [await verifier.check(one, READ) for one in (revoked, elsewhere)]
            lacking = await verifier.check(good, (*READ, "billing.read", "other.read"))
            await verifier.close()
        with sync.connect(address, token=own_token) as blocking_channel:
            blocking = sync.RemoteVerifier(blocking_channel, timeout_seconds=SECONDS_MAX)
            assert await asyncio.to_thread(blocking.check, good, READ) == active
            assert await asyncio.to_thread(blocking.check, revoked, READ) == Inactive()
    assert isinstance(active, Active)
    identity = active.identity
    assert (identity.subject, identity.scopes, identity.audiences) == ("alice", ("orders.*",), ("orders",))
    assert dict(identity.metadata) == {"team": "red"}
    assert identity.token_id == good[3:25]
    assert identity.holds("orders.write")
    assert not identity.holds("billing.read")
    assert found == [Inactive(), Inactive()]
    assert isinstance(lacking, Insufficient)
    assert lacking.missing_scopes == ("billing.read", "other.read")


@pytest.mark.parametrize(
    "verdict",
    [Active(None), Insufficient(None, ("a",)), Inactive(), Answer(Inactive(), Position(b"", 0), 0.0, 0.0)],  # type: ignore[arg-type]
)
def test_a_verdict_cannot_be_taken_for_a_truth_value(verdict: object) -> None:
    with pytest.raises(TypeError):
        bool(verdict)


async def test_what_is_no_token_is_refused_without_asking(authority: FakeAuthority) -> None:
    token = authority.issue("alice")
    foreign = FakeAuthority(token_prefix="xx_").issue("alice")
    # Nothing listens there: asking would raise.
    async with aio.connect("127.0.0.1:1", token="unused") as channel:
        verifier = aio.RemoteVerifier(channel)
        with sync.connect("127.0.0.1:1", token="unused") as blocking_channel:
            blocking = sync.RemoteVerifier(blocking_channel)
            for junk in ("", "x", token[:-1], token + "0", token.swapcase(), foreign, token[:10] + "é" + token[11:]):
                assert await verifier.check(junk, READ) == Inactive(malformed=True)
                assert blocking.check(junk, READ) == Inactive(malformed=True)
            assert await aio.RemoteVerifier(channel, token_prefix="xx_").check(token, ()) == Inactive(malformed=True)


async def test_a_check_joins_the_next_batch_and_never_one_already_sent(
    authority: FakeAuthority, batches: Batches
) -> None:
    tokens = some_tokens(authority, 5)
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
            first = asyncio.create_task(verifier.check(tokens[0], READ))
            await arrival(batches)
            others = [asyncio.create_task(verifier.check(token, READ)) for token in tokens[1:]]
            await asyncio.sleep(0)
            batches.go_on.release()
            assert subject(await first) == tokens[0]
            await arrival(batches)
            batches.go_on.release()
            assert [subject(one) for one in await asyncio.gather(*others)] == tokens[1:]
    assert batches.sizes == [1, 4]


def test_threads_share_the_next_batch_and_never_one_already_sent(authority: FakeAuthority, batches: Batches) -> None:
    tokens = some_tokens(authority, 5)
    with batches.served() as address, sync.connect(address, token="unused") as channel:
        verifier = sync.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
        with futures.ThreadPoolExecutor(5) as pool:
            first = pool.submit(verifier.check, tokens[0], READ)
            assert batches.arrived.acquire(timeout=SECONDS_MAX)
            others = [pool.submit(verifier.check, token, READ) for token in tokens[1:]]
            while len(verifier._waiting) < 4:
                threading.Event().wait(0)
            batches.go_on.release()
            assert subject(first.result(SECONDS_MAX)) == tokens[0]
            assert batches.arrived.acquire(timeout=SECONDS_MAX)
            batches.go_on.release()
            assert [subject(one.result(SECONDS_MAX)) for one in others] == tokens[1:]
    assert batches.sizes == [1, 4]


async def test_batches_are_bounded_and_so_is_the_queue(authority: FakeAuthority, batches: Batches) -> None:
    tokens = some_tokens(authority, 6)
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            verifier = aio.RemoteVerifier(
                channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1, batch_size_max=2, queue_size_max=4
            )
            first = asyncio.create_task(verifier.check(tokens[0], READ))
            await arrival(batches)
            others = [asyncio.create_task(verifier.check(token, READ)) for token in tokens[1:5]]
            await asyncio.sleep(0)
            with pytest.raises(VerifierUnavailableError) as caught:
                await verifier.check(tokens[5], READ)
            for _ in range(3):
                batches.go_on.release()
            assert [subject(one) for one in await asyncio.gather(first, *others)] == tokens[:5]
    assert caught.value.cause == "QUEUE_FULL"
    assert batches.sizes == [1, 2, 2]


async def test_a_check_given_up_while_waiting_is_not_sent(authority: FakeAuthority, batches: Batches) -> None:
    tokens = some_tokens(authority, 3)
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
            first = asyncio.create_task(verifier.check(tokens[0], READ))
            await arrival(batches)
            given_up = asyncio.create_task(verifier.check(tokens[1], READ))
            waiting = asyncio.create_task(verifier.check(tokens[2], READ))
            await asyncio.sleep(0)
            given_up.cancel()
            for _ in range(2):
                batches.go_on.release()
            assert [subject(one) for one in await asyncio.gather(first, waiting)] == [tokens[0], tokens[2]]
    assert batches.sizes == [1, 1]


async def test_a_check_takes_no_longer_than_its_deadline(authority: FakeAuthority, batches: Batches) -> None:
    (token,) = some_tokens(authority, 1)
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            with pytest.raises(VerifierUnavailableError) as caught:
                await aio.RemoteVerifier(channel, timeout_seconds=0.05).check(token, READ)
        with sync.connect(address, token="unused") as blocking_channel, pytest.raises(VerifierUnavailableError) as late:
            await asyncio.to_thread(sync.RemoteVerifier(blocking_channel, timeout_seconds=0.05).check, token, READ)
        for _ in range(2):
            batches.go_on.release()
    assert caught.value.cause == late.value.cause == "DEADLINE_EXCEEDED"


def short(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
    return pb.BatchValidateResponse()


def silent(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
    return pb.BatchValidateResponse(responses=[pb.ValidateResponse() for _ in request.requests])


def denied(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "canary " + request.requests[0].token)
    raise AssertionError


@pytest.mark.parametrize(
    ("reply", "cause"), [(short, "ANSWER_INVALID"), (silent, "ANSWER_INVALID"), (denied, "UNAUTHENTICATED")]
)
async def test_a_reply_that_cannot_be_understood_is_no_verdict(
    authority: FakeAuthority, batches: Batches, reply: Any, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    batches.reply = reply
    (token,) = some_tokens(authority, 1)
    for _ in range(2):
        batches.go_on.release()
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            with pytest.raises(VerifierUnavailableError) as caught:
                await aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX).check(token, READ)
        with sync.connect(address, token="unused") as blocking_channel:
            verifier = sync.RemoteVerifier(blocking_channel, timeout_seconds=SECONDS_MAX)
            with pytest.raises(VerifierUnavailableError) as blocked:
                await asyncio.to_thread(verifier.check, token, READ)
    assert caught.value.cause == blocked.value.cause == cause
    for said in (str(caught.value), repr(blocked.value), caplog.text):
        assert "canary" not in said
        assert token not in said


@pytest.mark.parametrize("stack", ["aio", "sync"])
async def test_what_cannot_be_judged_is_refused_alone_and_told_once(
    authority: FakeAuthority, batches: Batches, stack: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, unjudged, good = some_tokens(authority, 3)

    def reply(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
        response = batches.active(request, context)
        for asked, one in zip(request.requests, response.responses, strict=True):
            if asked.token == unjudged:
                one.unjudged.SetInParent()
        return response

    batches.reply = reply
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            verifier: Any = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
            check = verifier.check
            if stack == "sync":
                blocking = sync.connect(address, token="unused")
                verifier = sync.RemoteVerifier(blocking, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
                check = partial(asyncio.to_thread, verifier.check)
            for _ in range(2):
                lone = asyncio.ensure_future(check(first, READ))
                await arrival(batches)
                both = [asyncio.ensure_future(check(one, READ)) for one in (unjudged, good)]
                await until(lambda: len(verifier._waiting) == 2)
                batches.go_on.release()
                await arrival(batches)
                batches.go_on.release()
                refused, admitted = await asyncio.gather(*both, return_exceptions=True)
                assert isinstance(refused, VerifierUnavailableError)
                assert refused.cause == "UNJUDGED"
                assert subject(admitted) == good
                assert subject(await lone) == first
            if stack == "sync":
                blocking.close()
    lines = [record.getMessage() for record in caplog.records if record.name == "watchword.verifier"]
    assert len(lines) == 1
    assert "PEPPER_UNKNOWN" in lines[0]


async def test_an_outage_is_logged_once_and_ends_by_itself(
    authority: FakeAuthority, own_token: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = authority.issue("alice", scopes=["orders.read"])
    with serve(authority) as address:
        async with aio.connect(address, token=own_token) as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
            with authority.unavailable():
                for _ in range(3):
                    with pytest.raises(VerifierUnavailableError, match="UNAVAILABLE"):
                        await verifier.check(token, READ)
            assert isinstance(await verifier.check(token, READ), Active)
    lines = [record.getMessage() for record in caplog.records if record.name == "watchword.verifier"]
    assert [line.split(":")[0] for line in lines] == ["tokens cannot be verified", "tokens can be verified again"]


async def test_a_verifier_recovers_by_itself_when_the_authority_is_back(
    authority: FakeAuthority, own_token: str
) -> None:
    token = authority.issue("alice", scopes=["orders.read"])
    with serve(authority) as address:
        pass
    async with aio.connect(address, token=own_token) as channel:
        verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
        with pytest.raises(VerifierUnavailableError, match="UNAVAILABLE"):
            await verifier.check(token, READ)
        with serve(authority, address) as again:
            assert again == address
            await channel.channel_ready()
            assert isinstance(await verifier.check(token, READ), Active)


async def test_after_close_nothing_is_verified(authority: FakeAuthority, batches: Batches) -> None:
    tokens = some_tokens(authority, 2)
    with batches.served() as address:
        async with aio.connect(address, token="unused") as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
            under_way = asyncio.create_task(verifier.check(tokens[0], READ))
            await arrival(batches)
            await verifier.close()
            for check in (under_way, verifier.check(tokens[1], READ)):
                with pytest.raises(VerifierUnavailableError) as caught:
                    await check
                assert caught.value.cause == "CLOSED"
        with sync.connect(address, token="unused") as blocking_channel:
            blocking = sync.RemoteVerifier(blocking_channel)
            blocking.close()
            with pytest.raises(VerifierUnavailableError):
                blocking.check(tokens[1], READ)


@pytest.mark.parametrize("verifier", [aio.RemoteVerifier, sync.RemoteVerifier])
@pytest.mark.parametrize(
    "doubtful",
    [
        {"timeout_seconds": 0},
        {"timeout_seconds": float("nan")},
        {"batch_size_max": 0},
        {"batch_size_max": 1001},
        {"queue_size_max": 0},
        {"calls_in_flight_max": 0},
        {"token_prefix": "WW-"},
    ],
)
async def test_doubtful_settings_are_refused(verifier: Any, doubtful: dict[str, Any]) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(ValueError, match=r".+"):
        verifier(channel, **doubtful)


@pytest.mark.parametrize("stack", ["aio", "sync"])
async def test_tokens_that_say_much_cost_no_check_of_their_batch(authority: FakeAuthority, stack: str) -> None:
    """A reply larger than a channel takes: whoever holds such a token could otherwise end everybody's checks."""
    own = authority.issue("orders", scopes=["watchword.validate"], audiences=["watchword"])
    metadata = {f"key-{n}": "\N{LATIN SMALL LETTER E WITH ACUTE}" * 1024 for n in range(32)}
    tokens = [authority.issue("alice", metadata=metadata) for _ in range(99)] + [authority.issue("bob")]
    with serve(authority) as address:
        if stack == "aio":
            async with aio.connect(address, token=own) as channel:
                verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
                found = await asyncio.gather(*(verifier.check(one, ()) for one in tokens))
                await verifier.close()
        else:
            with sync.connect(address, token=own) as blocking_channel, futures.ThreadPoolExecutor(100) as pool:
                blocking = sync.RemoteVerifier(blocking_channel, timeout_seconds=SECONDS_MAX, calls_in_flight_max=1)
                found = await asyncio.to_thread(lambda: list(pool.map(lambda one: blocking.check(one, ()), tokens)))
                blocking.close()
    assert [subject(one) for one in found] == ["alice"] * 99 + ["bob"]


async def test_a_server_at_its_limit_is_not_asked_again_for_each_half(
    authority: FakeAuthority, own_token: str, batches: Batches
) -> None:
    def refuse(request: pb.BatchValidateRequest, context: Any) -> pb.BatchValidateResponse:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is at its limit of calls")
        raise AssertionError("abort raises")

    batches.reply = refuse
    batches.go_on.release()
    with batches.served() as address:
        async with aio.connect(address, token=own_token) as channel:
            verifier = aio.RemoteVerifier(channel, timeout_seconds=SECONDS_MAX)
            asked = [verifier.check(one, ()) for one in some_tokens(authority, 8)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            await verifier.close()
    assert {getattr(one, "cause", None) for one in found} == {"RESOURCE_EXHAUSTED"}
    assert batches.sizes == [8]
