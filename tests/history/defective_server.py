"""`watchword serve` without one mechanism.

python -m tests.history.defective_server serve
"""

from __future__ import annotations

from watchword_server.cli import main
from watchword_server.replica.observer import Observer
from watchword_server.store.contract import Position


def _waits_for_nobody(self: Observer, position: Position, committed: int) -> bool:
    return True


if __name__ == "__main__":
    setattr(Observer, "complete", _waits_for_nobody)  # noqa: B010  # an assignment is an error to the type checker
    main()
