"""When a loop is late, and until when: before, at and after each instant."""

from __future__ import annotations

import asyncio
import time

from tests.store.support import until
from watchword_server.request.permits import LATE_SECONDS, TURN_SECONDS, Lateness, Permits


class Loop:
    """A loop's two clocks: the one on the wall, and how long it was at work."""

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = 5.0
        self.lateness = Lateness(lambda: self.now, lambda: self.busy)

    def works(self, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds

    def waits(self, seconds: float) -> None:
        self.now += seconds

    @property
    def late(self) -> bool:
        """As a call that arrives now finds it."""
        return self.now > self.lateness.due_at and self.lateness.late()


def test_a_loop_at_work_for_too_long_is_late_until_it_comes_round_in_time() -> None:
    loop = Loop()
    loop.lateness.turn()
    loop.works(TURN_SECONDS + LATE_SECONDS)
    assert not loop.late
    loop.works(0.001)
    assert loop.late
    # It came round, too late: one turn in time comes first.
    loop.lateness.turn()
    assert loop.late
    loop.works(0.001)
    assert loop.late
    loop.waits(TURN_SECONDS)
    loop.lateness.turn()
    assert not loop.late
    loop.works(LATE_SECONDS)
    assert not loop.late


def test_one_that_is_late_again_stays_late() -> None:
    loop = Loop()
    loop.lateness.turn()
    for _ in range(3):
        loop.works(TURN_SECONDS + LATE_SECONDS + 0.001)
        loop.lateness.turn()
        assert loop.late


def test_one_that_was_given_no_time_is_not_late() -> None:
    loop = Loop()
    loop.lateness.turn()
    loop.works(LATE_SECONDS)
    loop.waits(3600)
    assert not loop.late
    loop.lateness.turn()
    assert not loop.late


def test_one_that_is_not_watched_is_never_late() -> None:
    loop = Loop()
    loop.works(3600)
    assert not loop.late


async def test_a_real_loop_that_is_held_up_is_late_and_catches_up() -> None:
    lateness = Lateness()
    async with lateness.watched():
        await asyncio.sleep(0)
        busy_until = time.thread_time() + 2 * LATE_SECONDS
        while time.thread_time() < busy_until:
            pass
        assert time.perf_counter() > lateness.due_at
        assert lateness.late()

        async def caught_up() -> bool:
            return time.perf_counter() <= lateness.due_at

        await until(caught_up)


def test_what_is_shed_is_counted_by_its_cause() -> None:
    causes: list[str] = []
    permits = Permits(1, count_shed=causes.append)
    permits.refusal()
    permits.under_way = 1
    permits.refusal()
    permits.refuse_calls()
    permits.refusal()
    assert causes == ["late", "limit"]
