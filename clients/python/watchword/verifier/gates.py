"""The open streams of this process, by the token that opened each: who is told when a token changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final


class Gate:
    """One open stream. Compared by identity."""

    __slots__ = ("doubt", "ends_at", "proof", "recheck", "token_id")

    def __init__(
        self, token_id: str, proof: bytes, ends_at: float, doubt: Callable[[], None], recheck: Callable[[], None]
    ) -> None:
        self.token_id: Final = token_id
        self.proof: Final = proof
        self.ends_at = ends_at
        """When its judgement has to be renewed, by this machine's boottime."""
        self.doubt: Final = doubt
        self.recheck: Final = recheck

    def __repr__(self) -> str:
        return f"Gate({self.token_id})"


class Gates:
    """All gates. Only to be touched under the cache's lock; what it hands out is called after leaving it."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, set[Gate]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def add(self, gate: Gate) -> None:
        """From here on it hears of changes."""
        self._of.setdefault(gate.token_id, set()).add(gate)

    def discard(self, gate: Gate) -> None:
        """The stream has ended."""
        gates = self._of.get(gate.token_id)
        if gates is not None:
            gates.discard(gate)
            if not gates:
                del self._of[gate.token_id]

    def of(self, token_ids: Iterable[str]) -> Sequence[Gate]:
        """The gates of these tokens."""
        return [gate for token_id in token_ids for gate in self._of.get(token_id, ())]

    def all(self) -> Sequence[Gate]:
        """Every gate."""
        return [gate for gates in self._of.values() for gate in gates]

    def due(self, now: float, next_at: float) -> Sequence[Gate]:
        """Those whose judgement has to be renewed at `now`; they are due again at `next_at`.

        Looks at every gate: a process has thousands of open streams, not millions, and this runs once a second.
        """
        due = [gate for gate in self.all() if gate.ends_at <= now]
        for gate in due:
            gate.ends_at = next_at
        return due

    def extend(self, token_id: str, proof: bytes, ends_at: float) -> None:
        """The token with this proof was judged again."""
        for gate in self._of.get(token_id, ()):
            if gate.proof == proof:
                gate.ends_at = ends_at

    def clear(self) -> None:
        """Forgets them all, telling nobody."""
        self._of.clear()


def call_all(callbacks: Iterable[Callable[[], None]]) -> None:
    """Each is called, whatever the others do; the first error is raised when all were."""
    failure: Exception | None = None
    for callback in callbacks:
        try:
            callback()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
