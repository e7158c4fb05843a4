"""FleetService: who is attached where, for operators."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from watchword.v1 import fleet_service_pb2 as pb
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.store.contract import Position
from watchword_server.store.fleet_contract import Fleet, ReplicaRow, WatcherRow

SERVICE = pb.DESCRIPTOR.services_by_name["FleetService"]


class FleetService:
    """The RPCs of watchword.v1.FleetService."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        return [Method(f"/{SERVICE.full_name}/ListWatchers", pb.ListWatchersRequest, self.list_watchers)]

    async def list_watchers(self, call: Call[pb.ListWatchersRequest]) -> pb.ListWatchersResponse:
        """All replicas, and a page of their watchers."""
        limit = pages.page_size(call.request.page_size)
        after = _page_after(call.request.page_token)
        watchers = await self._fleet.watchers(limit=limit + 1, after=after)
        roll = await self._fleet.roll()
        shown = pages.fitting(_watcher_message(row) for row in watchers[:limit])
        more = len(watchers) > len(shown)
        return pb.ListWatchersResponse(
            position=messages.position_message(Position(roll.epoch, roll.number)),
            replicas=[_replica_message(row) for row in roll.replicas],
            watchers=shown,
            next_page_token=_page_token(watchers, len(shown)) if more else "",
        )


def _page_token(watchers: Sequence[WatcherRow], shown: int) -> str:
    last = watchers[shown - 1]
    return pages.page_token(f"{last.replica}/{last.verifier_key.hex()}")


def _page_after(token: str) -> tuple[UUID, bytes] | None:
    if not token:
        return None
    replica, _, key = pages.page_after(token).partition("/")
    try:
        return UUID(replica), binascii.unhexlify(key)
    except ValueError:
        raise pages.page_token_unknown() from None


def _replica_message(row: ReplicaRow) -> pb.Replica:
    applied = None if row.applied is None else messages.position_message(Position(row.epoch, row.applied))
    return pb.Replica(
        replica_id=str(row.key),
        name=row.name,
        applied=applied,
        watchers_count=row.watchers_count,
        draining=row.draining,
        renewed_ago=_seconds(row.renewed_ago_seconds),
        lease=_seconds(row.lease_seconds),
    )


def _watcher_message(row: WatcherRow) -> pb.Watcher:
    return pb.Watcher(
        replica_id=str(row.replica),
        name=row.name,
        instance=row.instance,
        library=row.library,
        address=row.address,
        subject=row.subject,
        lag=row.lag,
        # As reported, less what passed since.
        lease_remaining=_seconds(max(0.0, row.lease_remaining_seconds - row.reported_ago_seconds)),
        attached=row.attached,
        reported_ago=_seconds(row.reported_ago_seconds),
    )


def _seconds(seconds: float) -> Any:
    return messages.duration_message(timedelta(seconds=seconds))
