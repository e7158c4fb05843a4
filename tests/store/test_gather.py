"""The gatherer alone: what shares a batch, what never does, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from watchword_server.store.contract import RowRefusedError, StoreError, StoreOverloadedError, StoreUnavailableError
from watchword_server.store.gather import Gatherer


class Database:
    """Answers `n` with `n + 1`, when it is let."""

    def __init__(self, *, open_at_once: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.refused: set[int] = set()
        self.failure: BaseException | None = None
        self.gate = asyncio.Event()
        if open_at_once:
            self.gate.set()

    async def send(self, requests: Sequence[int]) -> Sequence[int | StoreError]:
        self.batches.append(list(requests))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [RowRefusedError(str(one)) if one in self.refused else one + 1 for one in requests]


def gatherer(
    database: Database, *, batch_max: int = 100, queue_max: int = 1000, lanes: int = 1, quiet_turns: int = 0
) -> Gatherer[int, int]:
    return Gatherer(
        database.send,
        batch_max=batch_max,
        queue_max=queue_max,
        lanes=lanes,
        quiet_turns=quiet_turns,
        linger_seconds_max=3600,
    )


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_lone_request_goes_out_in_this_turn_of_the_loop() -> None:
    database = Database()
    # Turns without end: whoever lingered over a lone request would hang.
    one = gatherer(database, quiet_turns=1 << 62)
    assert await one.submit(1) == 2
    assert await one.submit(2) == 3
    assert database.batches == [[1], [2]]


async def test_requests_of_one_turn_share_a_batch_and_get_their_own_answers() -> None:
    database = Database()
    one = gatherer(database)
    assert await asyncio.gather(*(one.submit(n) for n in range(50))) == list(range(1, 51))
    assert database.batches == [list(range(50))]


async def test_request_never_joins_a_batch_already_sent() -> None:
    database = Database(open_at_once=False)
    one = gatherer(database)
    early = one.submit(1)
    await turns()
    late = one.submit(2)
    await turns()
    assert database.batches == [[1]]
    database.gate.set()
    assert list(await asyncio.gather(early, late)) == [2, 3]
    assert database.batches == [[1], [2]]


async def test_no_more_batches_are_under_way_than_lanes() -> None:
    database = Database(open_at_once=False)
    one = gatherer(database, lanes=2)
    waiting = []
    for n in range(5):
        waiting.append(one.submit(n))
        await turns()
    assert database.batches == [[0], [1]]
    database.gate.set()
    await asyncio.gather(*waiting)
    assert database.batches == [[0], [1], [2, 3, 4]]


async def test_batch_holds_at_most_batch_max() -> None:
    database = Database()
    one = gatherer(database, batch_max=10)
    assert await asyncio.gather(*(one.submit(n) for n in range(25))) == list(range(1, 26))
    assert [len(batch) for batch in database.batches] == [10, 10, 5]


async def test_full_batch_does_not_linger() -> None:
    database = Database()
    one = gatherer(database, batch_max=10, quiet_turns=1 << 62)
    assert await asyncio.gather(*(one.submit(n) for n in range(20))) == list(range(1, 21))


async def test_after_a_busy_batch_the_next_one_lingers_and_gathers_more_turns() -> None:
    database = Database()
    one = gatherer(database, quiet_turns=20)
    await asyncio.gather(*(one.submit(n) for n in range(10)))
    waiting = []
    for n in range(10, 20):
        waiting.append(one.submit(n))
        await turns()
    await asyncio.gather(*waiting)
    assert [len(batch) for batch in database.batches] == [10, 10]


async def test_a_batch_that_never_fills_goes_out_when_its_time_is_up() -> None:
    database = Database()
    one: Gatherer[int, int] = Gatherer(
        database.send, batch_max=100, queue_max=100, quiet_turns=1 << 62, linger_seconds_max=0.001
    )
    await asyncio.gather(*(one.submit(n) for n in range(10)))
    assert await one.submit(10) == 11


async def test_full_queue_refuses_and_recovers() -> None:
    database = Database(open_at_once=False)
    one = gatherer(database, queue_max=3)
    sent = one.submit(0)
    await turns()
    waiting = [one.submit(n) for n in (1, 2, 3)]
    with pytest.raises(StoreOverloadedError):
        one.submit(4)
    database.gate.set()
    assert await asyncio.gather(sent, *waiting) == [1, 2, 3, 4]
    assert await one.submit(4) == 5


async def test_caller_that_leaves_before_the_batch_is_not_sent() -> None:
    database = Database()
    one = gatherer(database)
    leaving, staying = one.submit(1), one.submit(2)
    leaving.cancel()
    assert await staying == 3
    assert database.batches == [[2]]


async def test_batch_of_nobody_is_not_sent_and_the_next_request_is() -> None:
    database = Database()
    one = gatherer(database)
    one.submit(1).cancel()
    await turns()
    assert database.batches == []
    assert await one.submit(2) == 3


async def test_caller_that_leaves_a_batch_under_way_disturbs_nobody() -> None:
    database = Database(open_at_once=False)
    one = gatherer(database)
    waiting = [one.submit(n) for n in range(3)]
    await turns()
    waiting[1].cancel()
    database.gate.set()
    assert [await waiting[0], await waiting[2]] == [1, 3]


async def test_answer_that_is_an_error_is_raised_for_its_request_alone() -> None:
    database = Database()
    database.refused = {1}
    one = gatherer(database)
    answers = await asyncio.gather(*(one.submit(n) for n in range(3)), return_exceptions=True)
    assert answers[0::2] == [1, 3]
    assert isinstance(answers[1], RowRefusedError)


async def test_failed_batch_fails_for_all_in_it_and_for_nobody_after() -> None:
    database = Database()
    database.failure = StoreUnavailableError("gone")
    one = gatherer(database)
    answers = await asyncio.gather(*(one.submit(n) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
    database.failure = None
    assert await one.submit(5) == 6


async def test_cancelled_batch_is_unavailable_and_never_leaves_a_caller_waiting() -> None:
    database = Database()
    database.failure = asyncio.CancelledError()
    one = gatherer(database)
    with pytest.raises(StoreUnavailableError):
        await one.submit(1)


async def test_wrong_number_of_answers_is_nobodys_answer() -> None:
    """An answer dealt to the wrong request would be another caller's verdict."""

    async def send(requests: Sequence[int]) -> Sequence[int | StoreError]:
        return [7]

    one: Gatherer[int, int] = Gatherer(send, batch_max=10, queue_max=10)
    answers = await asyncio.wait_for(asyncio.gather(one.submit(1), one.submit(2), return_exceptions=True), timeout=10)
    assert [isinstance(answer, Exception) for answer in answers] == [True, True]


async def test_close_waits_for_what_is_under_way_and_what_waits() -> None:
    database = Database(open_at_once=False)
    one = gatherer(database, batch_max=1)
    waiting = [one.submit(n) for n in range(3)]
    await turns()
    closing = asyncio.ensure_future(one.close())
    await turns()
    assert not closing.done()
    with pytest.raises(StoreUnavailableError):
        one.submit(9)
    database.gate.set()
    await closing
    assert [future.result() for future in waiting] == [1, 2, 3]
