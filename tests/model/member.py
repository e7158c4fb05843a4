"""The real member of the fleet, taking one attempt at a time."""

from __future__ import annotations

from tests.model.steps import SteppedLock
from watchword.lease import Clock
from watchword_server.replica.ledger import Ledger
from watchword_server.replica.member import Member
from watchword_server.replica.propagation import Propagation
from watchword_server.store.fleet_contract import Fleet


class SteppedMember(Member):
    """Does not join by itself, with pauses, but when the test says so; and waits for its locks on steps."""

    def __init__(
        self,
        fleet: Fleet,
        ledger: Ledger,
        clock: Clock,
        propagation: Propagation,
        *,
        name: str,
        lease_seconds: float,
    ) -> None:
        super().__init__(fleet, ledger, clock, propagation, name=name, lease_seconds=lease_seconds)
        self._joining = SteppedLock()  # type: ignore[assignment]
        self._rejoining = SteppedLock()  # type: ignore[assignment]
        self.wants_join = True

    async def _join(self) -> None:
        self.wants_join = True
