"""Which tokens changed lately, and where: what decides whether an answer that was read earlier still holds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final


class RecentChanges:
    """The last change of each token above `floor`, the latest `kept_max` of them.

    Nothing is known about changes up to the floor, so answers read below it cannot be judged. Forgetting raises it.
    """

    __slots__ = ("_last", "floor", "kept_max")

    def __init__(self, kept_max: int) -> None:
        self.kept_max: Final = kept_max
        self.floor = 0
        self._last: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._last)

    def note(self, token_id: str, number: int) -> None:
        """The token became less valid at `number`. Numbers never go down between two calls of `restart`."""
        self._last[token_id] = number
        # The order is that of the positions, so the first is the one to forget.
        self._last.move_to_end(token_id)
        if len(self._last) > self.kept_max:
            self.floor = max(self.floor, self._last.popitem(last=False)[1])

    def changed_above(self, token_id: str, number: int) -> bool:
        """Whether a change of the token above `number` is remembered. Says nothing of a `number` below the floor."""
        return self._last.get(token_id, 0) > number

    def restart(self, number: int) -> None:
        """Forgets all: only what was read at `number` or later can be judged from here on."""
        self._last.clear()
        self.floor = number
