"""The caching verifiers of both stacks, against a watched authority over real channels."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.client.subjects import Rig, until
from watchword import VerifierUnavailableError, aio, sync
from watchword.verifier import Active, Inactive, Insufficient
from watchword.verifier.limits import CacheLimits
from watchword.verifier.misses import MissLimits

READ = "orders.read"


@pytest.fixture(params=["aio", "sync"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


async def test_a_token_is_asked_for_once_and_then_answered_without_a_call(rig: Rig) -> None:
    token = rig.issue("orders.*")
    async with rig.attached() as subject:
        first = await subject.check(token, READ)
        assert isinstance(first, Active)
        with rig.authority.unavailable():
            assert await subject.check(token, READ) == first
            lacking = await subject.check(token, "billing.read")
        assert isinstance(lacking, Insufficient)
        assert lacking.missing_scopes == ("billing.read",)
        status = subject.status()
        assert (status.misses, status.hits, status.entries) == (1, 2, 1)


async def test_an_insufficient_answer_is_cached_as_the_identity_it_carries(rig: Rig) -> None:
    token = rig.issue("orders.read")
    async with rig.attached() as subject:
        assert isinstance(await subject.check(token, "billing.read"), Insufficient)
        with rig.authority.unavailable():
            assert isinstance(await subject.check(token, READ), Active)


async def test_an_inactive_token_is_asked_for_once(rig: Rig) -> None:
    token = rig.issue()
    rig.authority.revoke(token)
    async with rig.attached() as subject:
        assert await subject.check(token) == Inactive()
        with rig.authority.unavailable():
            assert await subject.check(token) == Inactive()
        assert subject.status().negative_entries == 1


async def test_what_is_no_token_costs_no_call(rig: Rig) -> None:
    async with rig.attached() as subject:
        with rig.authority.unavailable():
            for junk in ("", "x", "é" * 64, rig.issue()[:-1] + "!", rig.issue().swapcase()):
                assert await subject.check(junk) == Inactive(malformed=True)
        assert subject.status().misses == 0


async def test_after_a_complete_revocation_no_check_finds_the_token_active(rig: Rig) -> None:
    async with rig.attached() as subject:
        for _ in range(20):
            token = rig.issue()
            assert isinstance(await subject.check(token), Active)
            assert await rig.revoke(token) == 1
            assert await subject.check(token) == Inactive()
        status = subject.status()
        assert (status.changes, status.applied, status.lag) == (20, 20, 0)
        assert status.flushes == 1, "the first hello, and none after it"


async def test_the_status_says_what_is_the_case(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "watchword.verifier")
    async with rig.subject() as subject:
        before = subject.status()
        assert (before.caching, before.attached, before.epoch) == (False, False, None)
        assert before.reason == "no lease was granted yet"
        await subject.check(rig.issue())
        await until(lambda: subject.status().caching)
        during = subject.status()
        assert during.attached
        assert during.reason is None
        assert during.epoch == rig.authority.epoch
        assert 25 < during.lease_remaining_seconds < 30
        assert {one.name for one in during.measurements()} >= {"hits", "misses", "lag", "lease_remaining_seconds"}
    after = subject.status()
    assert (after.caching, after.reason) == (False, "the verifier is closed")
    assert len([line for line in caplog.messages if "checks are cached" in line]) == 1


async def test_a_verifier_without_a_lease_asks_for_every_check(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        await subject.check(token)
        subject.verifier._cache.lapse()
        with rig.authority.unavailable(), pytest.raises(VerifierUnavailableError):
            await subject.check(token)


async def test_a_lost_stream_is_resumed_and_keeps_what_is_cached(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    kept, revoked = rig.issue(), rig.issue()
    async with rig.attached() as subject:
        await subject.check(kept)
        await subject.check(revoked)
        with rig.authority.unavailable():
            rig.watch.end_streams()
            await until(lambda: not subject.status().attached)
            assert isinstance(await subject.check(kept), Active)
            assert rig.authority.revoke(revoked)
        await until(lambda: subject.status().attached and subject.status().applied == 1)
        assert await asyncio.to_thread(rig.watch.wait_everywhere, 1) == 1
        assert rig.watch.resumes_count == 1
        with rig.authority.unavailable():
            assert isinstance(await subject.check(kept), Active)
        assert await subject.check(revoked) == Inactive()
        assert subject.status().flushes == 1
    assert len([line for line in caplog.messages if "the watch is lost" in line]) == 1


async def test_a_reset_forgets_all(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        await subject.check(token)
        rig.watch.reset()
        await until(lambda: subject.status().flushes == 2)
        assert subject.status().entries == 0
        with rig.authority.unavailable(), pytest.raises(VerifierUnavailableError):
            await subject.check(token)
        assert isinstance(await subject.check(token), Active)


async def test_a_replica_that_goes_away_gets_its_lease_back_first(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        await subject.check(token)
        rig.watch.move()
        await until(lambda: rig.watch.releases_count == 1)
        await until(lambda: rig.watch.resumes_count == 1 and subject.status().caching)
        with rig.authority.unavailable():
            assert isinstance(await subject.check(token), Active)
        assert subject.status().last_error == "MOVED"


async def test_closing_gives_the_lease_back_so_that_no_revocation_waits(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        await subject.check(token)
        await subject.close()
        assert rig.watch.releases_count == 1
        assert await rig.revoke(token) == 0
        with pytest.raises(VerifierUnavailableError) as caught:
            await subject.check(token)
    assert caught.value.cause == "CLOSED"


async def test_many_checks_of_one_token_at_once_share_one_lookup(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        with rig.authority.still():
            # Held: nothing is judged, nor revoked, until all of them wait.
            checks = [asyncio.create_task(subject.check(token)) for _ in range(4)]
            await until(lambda: subject.status().joins == 3)
        assert all(isinstance(one, Active) for one in await asyncio.gather(*checks))
        assert subject.status().misses == 1


async def test_who_joined_does_not_fail_because_the_first_gave_up() -> None:
    # A thread cannot be given up.
    rig = Rig("aio")
    token = rig.issue()
    async with rig.attached() as subject:
        with rig.authority.still():
            first = asyncio.create_task(subject.check(token))
            await until(lambda: subject.status().misses == 1)
            second = asyncio.create_task(subject.check(token))
            await until(lambda: subject.status().joins == 1)
            first.cancel()
        assert isinstance(await second, Active)
        assert subject.status().misses == 2


async def test_without_a_lease_nobody_joins(rig: Rig) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        subject.verifier._cache.lapse()
        with rig.authority.still():
            checks = [asyncio.create_task(subject.check(token)) for _ in range(4)]
            await until(lambda: subject.status().misses == 4)
        await asyncio.gather(*checks)
        assert subject.status().joins == 0


async def test_misses_beyond_the_limit_are_refused_and_hits_are_not(rig: Rig) -> None:
    good = rig.issue()
    junk = [rig.issue() for _ in range(50)]
    for token in junk:
        rig.authority.revoke(token)
    async with rig.attached(miss_limits=MissLimits(per_second_max=1, per_peer_per_second_max=1)) as subject:
        assert isinstance(await subject.check(good), Active)
        outcomes = await asyncio.gather(*map(subject.check, junk), return_exceptions=True)
        refused = [one for one in outcomes if isinstance(one, VerifierUnavailableError)]
        assert len(refused) >= 40
        assert {one.cause for one in refused} == {"MISSES_LIMITED"}
        assert subject.status().limited == len(refused)
        with rig.authority.unavailable():
            assert isinstance(await subject.check(good), Active)


async def test_who_calls_is_asked_for_on_a_miss_only(rig: Rig) -> None:
    token, asked = rig.issue(), list[str]()

    def peer() -> str:
        asked.append("once")
        return "ipv4:10.0.0.7:1"

    async with rig.attached() as subject:
        for _ in range(3):
            verdict = (
                await subject.verifier.check(token, (), peer=peer)
                if rig.kind == "aio"
                else await asyncio.to_thread(subject.verifier.check, token, (), peer=peer)
            )
            assert isinstance(verdict, Active)
    assert asked == ["once"]


async def test_junk_evicts_nothing_good(rig: Rig) -> None:
    good = rig.issue()
    async with rig.attached(limits=CacheLimits(entries_max=2, negative_entries_max=2)) as subject:
        await subject.check(good)
        for _ in range(6):
            token = rig.issue()
            rig.authority.revoke(token)
            assert await subject.check(token) == Inactive()
        assert subject.status().negative_entries == 2
        with rig.authority.unavailable():
            assert isinstance(await subject.check(good), Active)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 86_401.0, float("inf"), float("nan")])
async def test_a_lease_that_makes_no_sense_is_refused(seconds: float) -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ValueError, match="lease_seconds"):
            aio.CachingVerifier(channel, name="orders", lease_seconds=seconds)
    with grpc.insecure_channel("127.0.0.1:1") as blocking, pytest.raises(ValueError, match="lease_seconds"):
        sync.CachingVerifier(blocking, name="orders", lease_seconds=seconds)
