"""What somebody should look at: a token turned up where it should not. For the audit log, the log and the metrics."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from uuid import UUID

from watchword.network import canonical_address
from watchword.token import format_token_id
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Use
from watchword_server.store.event_contract import Event

ROTATED_PRESENTED: Final = "rotated_token_presented"
BOUND_REFUSED: Final = "bound_token_refused"
AGAIN_SECONDS: Final = 3600.0
"""How long the same alarm about the same token is not told again."""
TOLD_MAX: Final = 10_000
"""Of how many that is remembered; the longest ago is forgotten first."""
_log = logging.getLogger("watchword")


class Alarms:
    """Tells each alarm once an hour for each token; `count` is told every time, `record` writes in the background."""

    def __init__(
        self,
        record: Callable[[Event], None],
        *,
        count: Callable[[str], None],
        clock: Callable[[], float],
        told_max: int = TOLD_MAX,
    ) -> None:
        self._record = record
        self._count = count
        self._clock = clock
        self._told_max = told_max
        self._told: OrderedDict[tuple[str, UUID], float] = OrderedDict()

    def rotated_presented(self, token: TokenRecord, service: str, address: str) -> None:
        """A rotated token was presented after its end, with the right secret: it leaked, or something was forgotten."""
        self._tell(ROTATED_PRESENTED, token.token_id, service, address, {})

    def bound_refused(self, use: Use) -> None:
        """Calls with a bound token were refused for where they came from, or for their certificate."""
        self._tell(BOUND_REFUSED, use.token_id, use.service, use.address, {"count": str(use.count)})

    def _tell(self, alarm: str, token_id: UUID, service: str, address: str, details: dict[str, str]) -> None:
        self._count(alarm)
        now = self._clock()
        told_at = self._told.pop((alarm, token_id), None)
        if told_at is not None and now - told_at < AGAIN_SECONDS:
            # Where it was among the others no longer matters much: who is asked about often is remembered.
            self._told[alarm, token_id] = told_at
            return
        self._told[alarm, token_id] = now
        if len(self._told) > self._told_max:
            self._told.popitem(last=False)
        _log.warning("%s: %s", alarm.replace("_", " "), format_token_id(token_id))
        self._record(Event(alarm, Actor(service, None, canonical_address(address)), token_id, details))
