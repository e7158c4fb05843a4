"""The latest changes, kept once for all streams: each reads at its own place, so a slow reader costs no memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.store.fleet_contract import Change

IDS_PER_MESSAGE_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream was told: everything up to `number`, and `ids` of the tokens of the position after it."""

    number: int
    ids: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    token_ids: Sequence[bytes]
    everything: bool
    learned_at: float

    @property
    def weight(self) -> int:
        return 1 + len(self.token_ids)


class ChangeLog:
    """Contiguous changes above `floor` and up to `number`, of at most `ids_max` tokens (and positions) together."""

    def __init__(self, number: int, learned_at: float, *, ids_max: int) -> None:
        self.floor = number
        self.number = number
        self._floor_at = learned_at
        self._ids_max = ids_max
        self._ids = 0
        self._kept: dict[int, _Kept] = {}
        # Streams that keep up ask for the very same message one after another.
        self._latest: tuple[Place, int, pb.WatchResponse, Place] | None = None

    def append(self, change: Change, learned_at: float) -> None:
        """The change at `number` + 1. The oldest go when there are too many."""
        assert change.number == self.number + 1, "positions are contiguous"
        kept = _Kept([token_id.bytes for token_id in change.token_ids], change.everything, learned_at)
        self.number = change.number
        self._kept[change.number] = kept
        self._ids += kept.weight
        while self._ids > self._ids_max:
            self.floor += 1
            oldest = self._kept.pop(self.floor)
            self._floor_at = oldest.learned_at
            self._ids -= oldest.weight

    def learned_at(self, number: int) -> float:
        """When this replica learned of a position; of one that is no longer kept, when it learned of the floor."""
        kept = self._kept.get(number)
        return self._floor_at if kept is None else kept.learned_at

    def holds(self, place: Place) -> bool:
        """Whether a stream can go on from there."""
        return self.floor <= place.number <= self.number

    def message(self, place: Place, up_to: int) -> tuple[pb.WatchResponse, Place]:
        """The next message for a stream at `place`, of nothing above `up_to`, and where the stream stands after it."""
        if self._latest is not None and self._latest[:2] == (place, up_to):
            return self._latest[2], self._latest[3]
        response, after = self._message(place, up_to)
        self._latest = (place, up_to, response, after)
        return response, after

    def _message(self, place: Place, up_to: int) -> tuple[pb.WatchResponse, Place]:
        response = pb.WatchResponse()
        room = IDS_PER_MESSAGE_MAX
        while room > 0 and place.number < up_to:
            number = place.number + 1
            kept = self._kept[number]
            part = kept.token_ids[place.ids : place.ids + room]
            told = place.ids + len(part)
            last = told == len(kept.token_ids)
            response.changes.changes.add(number=number, token_ids=part, last=last, everything=kept.everything)
            room -= max(1, len(part))
            place = Place(number) if last else Place(place.number, told)
        return response, place
