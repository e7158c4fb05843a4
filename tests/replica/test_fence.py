"""A server that lost touch uses nothing that it read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from watchword_server.replica.fence import FencedStore, LeaseMissingError
from watchword_server.store.contract import Position, Snapshot, Store

EPOCH, OTHER = UUID(int=1), UUID(int=2)


class Reads:
    """A store that answers what it is told, and does something before each answer."""

    def __init__(self, *positions: Position, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.positions = list(positions)
        self.meanwhile = meanwhile

    async def read(self, token_ids: Sequence[UUID]) -> Snapshot:
        self.meanwhile()
        return Snapshot({}, self.positions.pop(0), datetime(2030, 1, 1, tzinfo=UTC))

    def __getattr__(self, name: str) -> Any:
        return None


class Fence:
    """A replica that says what a test sets."""

    def __init__(self, told: int = 5) -> None:
        self.told = told
        self.live = True

    def may_judge(self, epoch: UUID) -> bool:
        return self.live and epoch == EPOCH


def fenced(reads: Reads, fence: Fence) -> FencedStore:
    return FencedStore(cast(Store, reads), fence)


@pytest.mark.parametrize("number", [5, 6])
async def test_a_read_at_what_was_told_or_later_is_used(number: int) -> None:
    snapshot = await fenced(Reads(Position(EPOCH, number)), Fence()).read([])
    assert snapshot.position.number == number


async def test_a_read_behind_what_was_told_is_tried_once_more() -> None:
    reads = Reads(Position(EPOCH, 4), Position(EPOCH, 5))
    assert (await fenced(reads, Fence()).read([])).position.number == 5
    with pytest.raises(LeaseMissingError):
        await fenced(Reads(*[Position(EPOCH, 4)] * 2), Fence()).read([])


async def test_what_is_told_while_a_read_is_under_way_does_not_refuse_it() -> None:
    """It began before, and so did the call that it is for."""
    fence = Fence()

    def tell() -> None:
        fence.told = 6

    reads = Reads(Position(EPOCH, 5), meanwhile=tell)
    assert (await fenced(reads, fence).read([])).position.number == 5


async def test_a_read_of_another_epoch_is_not_used() -> None:
    with pytest.raises(LeaseMissingError):
        await fenced(Reads(*[Position(OTHER, 9)] * 2), Fence()).read([])


async def test_a_read_is_judged_by_the_lease_after_it() -> None:
    fence = Fence()

    def lapse() -> None:
        fence.live = False

    with pytest.raises(LeaseMissingError):
        await fenced(Reads(*[Position(EPOCH, 5)] * 2, meanwhile=lapse), fence).read([])
