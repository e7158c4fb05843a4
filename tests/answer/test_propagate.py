"""How long a Revoke waits: never so long that "pending" comes too late."""

from __future__ import annotations

from uuid import UUID

import pytest

from watchword_server.answer.propagate import Propagating
from watchword_server.replica.propagation import Reached
from watchword_server.store.contract import Position

POSITION = Position(UUID(int=1), 7)


class Waiting:
    """Writes down for how long it was asked to wait."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def wait(self, position: Position, seconds: float) -> Reached:
        assert position == POSITION
        self.asked.append(seconds)
        return Reached(complete=False, effective_in_seconds=1, replicas_count=1, verifiers_count=0)


@pytest.mark.parametrize(
    ("wait", "seconds_left", "waited"),
    [
        (True, None, 90),
        (True, 1000, 90),
        (True, 10, 9.5),
        (True, 0.5, 0.45),
        (True, 0.05, 0),
        (True, 0.01, 0),
        (False, None, 0),
        (False, 10, 0),
    ],
)
async def test_a_margin_of_the_deadline_is_kept(wait: bool, seconds_left: float | None, waited: float) -> None:
    waiting = Waiting()
    await Propagating(waiting, wait_seconds_max=90).reached(POSITION, wait=wait, seconds_left=seconds_left)
    assert waiting.asked == [pytest.approx(waited)]
