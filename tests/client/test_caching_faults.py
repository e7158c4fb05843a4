"""What a caching verifier does when its watch cannot be had, fails, or talks nonsense: it asks, and says why."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.client.subjects import Rig, Subject, until
from watchword import VerifierUnavailableError
from watchword.fake_watch import FakeWatch
from watchword.v1 import verifier_service_pb2 as pb
from watchword.verifier import Active, Inactive
from watchword.verifier.attachment import Attachment


class FailingWatch(FakeWatch):
    """Ends each stream with `code`, while there is one; says what `script` says, while there is one."""

    code: grpc.StatusCode | None = None
    script: list[pb.WatchResponse] | None = None
    attempts = 0
    silenced = False
    """Leases are recorded and not granted."""

    def Watch(self, request_iterator: Any, context: Any) -> Iterator[pb.WatchResponse]:
        self.attempts += 1
        if self.code is not None:
            context.abort(self.code, "not now")
        if self.script is None:
            for message in super().Watch(request_iterator, context):
                if not self.silenced:
                    yield message
            return
        yield from self.script
        over = threading.Event()
        context.add_callback(over.set)
        over.wait()


class FailingRig(Rig):
    watch: FailingWatch

    def __init__(self, kind: str, lease_seconds: float = 30.0) -> None:
        super().__init__(kind, lease_seconds)
        self.watch = FailingWatch(self.authority, lease_seconds)


@pytest.fixture(params=["aio", "sync"])
def rig(request: pytest.FixtureRequest) -> FailingRig:
    return FailingRig(request.param)


def warnings(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return len([line for line in caplog.messages if text in line])


async def asks_every_time(rig: Rig, subject: Subject) -> None:
    token = rig.issue()
    misses = subject.status().misses
    for _ in range(3):
        assert isinstance(await subject.check(token), Active)
    assert subject.status().misses == misses + 3


async def test_a_verifier_that_is_cut_off_stops_relying_on_its_cache_when_the_lease_has_run_out() -> None:
    for kind in ("aio", "sync"):
        rig = FailingRig(kind, lease_seconds=1.0)
        token = rig.issue()
        async with rig.attached() as subject:
            await subject.check(token)
            rig.watch.code = grpc.StatusCode.UNAVAILABLE
            rig.watch.end_streams()
            rig.authority.revoke(token)
            await until(lambda: not subject.status().caching)
            assert await subject.check(token) == Inactive()
            with rig.authority.unavailable(), pytest.raises(VerifierUnavailableError):
                await subject.check(token)
            rig.watch.code = None
            await until(lambda: subject.status().caching)


async def test_an_authority_without_watch_is_asked_every_time_and_the_log_says_so_once(
    rig: FailingRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.watch.code = grpc.StatusCode.UNIMPLEMENTED
    async with rig.subject() as subject:
        await subject.start()
        await until(lambda: subject.status().last_error == "UNIMPLEMENTED")
        await asks_every_time(rig, subject)
        status = subject.status()
        assert (status.caching, status.attached) == (False, False)
        assert status.reason is not None
        assert "older than this library" in status.reason
    assert rig.watch.attempts == 1
    assert warnings(caplog, "caching is off") == 1


async def test_a_verifier_that_may_not_watch_says_what_its_token_lacks(
    rig: FailingRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.own_token = rig.authority.issue("orders", audiences=["watchword"])
    async with rig.subject() as subject:
        await subject.start()
        # A refusal that comes before a busy client began to write may arrive as another status first.
        await until(lambda: rig.authority.checks_count >= 3 and subject.status().last_error == "SCOPE_MISSING")
        assert "watchword.validate" in str(subject.status().reason)
    assert warnings(caplog, "watchword.validate") >= 1


@pytest.mark.parametrize(
    "script",
    [
        [pb.WatchResponse(move=pb.Move())],
        [pb.WatchResponse()],
        [pb.WatchResponse(welcome=pb.Welcome())],
        [pb.WatchResponse(grant=pb.LeaseGrant(nonce=1))],
    ],
)
async def test_nonsense_ends_the_stream_and_forgets_all(rig: FailingRig, script: list[pb.WatchResponse]) -> None:
    token = rig.issue()
    async with rig.attached() as subject:
        await subject.check(token)
        rig.watch.script = script
        rig.watch.end_streams()
        await until(lambda: subject.status().last_error == "WATCH_PROTOCOL")
        status = subject.status()
        assert (status.caching, status.entries, status.epoch) == (False, 0, None)
        await asks_every_time(rig, subject)
        rig.watch.script = None
        await until(lambda: subject.status().caching)


async def test_a_watch_that_falls_silent_is_opened_again_while_the_lease_still_lives() -> None:
    for kind in ("aio", "sync"):
        rig = FailingRig(kind, lease_seconds=6.0)
        async with rig.attached() as subject:
            rig.watch.silenced = True
            await until(lambda: subject.status().last_error == "SILENT")
            rig.watch.silenced = False
            await until(lambda: subject.status().caching)
            assert subject.status().flushes == 1


async def test_where_there_is_no_boottime_clock_nothing_is_cached(
    rig: FailingRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    async with rig.subject() as subject:
        await subject.start()
        await asks_every_time(rig, subject)
        status = subject.status()
        assert (status.caching, status.attached) == (False, False)
        assert "CLOCK_BOOTTIME" in str(status.reason)
        subject.verifier.open_stream(rig.issue(), (), lambda verdict: None).close()
    assert rig.watch.attempts == 0
    assert warnings(caplog, "caching is off") == 1


async def test_an_authority_that_is_not_there_is_tried_again_and_again(rig: FailingRig) -> None:
    async with rig.subject_at("127.0.0.1:1", timeout_seconds=1.0) as subject:
        with pytest.raises(VerifierUnavailableError):
            await subject.check(rig.issue())
        await until(lambda: subject.status().last_error == "UNAVAILABLE")


async def test_nothing_is_left_running_after_close(rig: FailingRig) -> None:
    tasks = asyncio.all_tasks()
    async with rig.attached() as subject:
        await subject.check(rig.issue())
        await subject.close()
        await until(lambda: asyncio.all_tasks() == tasks)
        names = {thread.name for thread in threading.enumerate()}
        assert not {name for name in names if name.startswith("watchword-")}


async def test_after_a_fork_the_child_watches_for_itself(rig: FailingRig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig.attached() as subject:
        parents = subject.verifier._watch
        process = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        await subject.check(rig.issue())
        assert subject.verifier._watch is not parents
        closed = parents.close()
        if closed is not None:
            await closed
        await until(lambda: rig.watch.attempts == 2)


async def test_closing_what_was_never_started_is_nothing(rig: FailingRig) -> None:
    async with rig.subject():
        pass
    assert rig.watch.attempts == 0


def test_attempts_come_further_and_further_apart_and_differ() -> None:
    waits = []
    for _ in range(50):
        attachment = Attachment("orders")
        attachment.lost("UNAVAILABLE", 0.0)
        waits.append([attachment.retry_seconds() for _ in range(10)])
    assert all(0.05 <= one[0] <= 0.1 and 2.5 <= one[-1] <= 5.0 for one in waits)
    assert len({one[0] for one in waits}) > 1
    attachment.attached(60.0)
    attachment.lost("UNAVAILABLE", 0.0)
    assert attachment.retry_seconds() <= 0.1


async def test_a_watch_that_ends_leaves_no_task_behind() -> None:
    """gRPC's own tasks included: one that is forgotten is an error in the log of whoever runs the service."""
    rig = FailingRig("aio")
    before = asyncio.all_tasks()
    async with rig.attached() as subject:
        rig.watch.end_streams()
        await until(lambda: rig.watch.attempts > 1 and subject.status().attached)
        rig.watch.code = grpc.StatusCode.UNAVAILABLE
        rig.watch.end_streams()
        await until(lambda: rig.watch.attempts > 3)
    await until(lambda: asyncio.all_tasks() == before)
