"""Rounds: whoever waits for one gets one that began after he asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from watchword_server.replica.rounds import Rounds
from watchword_server.store.contract import StoreUnavailableError


class Work:
    """Rounds that go on when a test says so."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = asyncio.Event()
        self.may_end = asyncio.Semaphore(0)
        self.fails = False
        self.rounds = Rounds("work", self.work, lambda: 3600)

    async def work(self) -> None:
        self.count += 1
        self.begun.set()
        await self.may_end.acquire()
        if self.fails:
            raise StoreUnavailableError("gone")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.rounds.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_nobody_is_given_a_round_that_was_under_way() -> None:
    work = Work()
    async with work.running():
        first = work.rounds.next()
        await work.begun.wait()
        second = work.rounds.next()
        work.may_end.release()
        await first
        assert not second.done()
        work.may_end.release()
        await second
        assert work.count == 2


async def test_all_who_ask_meanwhile_share_the_next_round() -> None:
    work = Work()
    async with work.running():
        first = work.rounds.next()
        await work.begun.wait()
        others = [work.rounds.next() for _ in range(100)]
        work.may_end.release()
        work.may_end.release()
        await asyncio.gather(first, *others)
        assert work.count == 2


async def test_a_failure_is_told_to_who_asked_and_the_next_round_comes_anyway() -> None:
    work = Work()
    work.fails = True
    async with work.running():
        asked, ended = work.rounds.next(), work.rounds.ended()
        work.may_end.release()
        with pytest.raises(StoreUnavailableError):
            await asked
        await ended
        work.fails = False
        again = work.rounds.next()
        work.may_end.release()
        await again


async def test_a_caller_that_leaves_disturbs_nobody() -> None:
    work = Work()
    async with work.running():
        left, stays = work.rounds.next(), work.rounds.next()
        left.cancel()
        work.may_end.release()
        await stays
