"""AuditService: who did what."""

from __future__ import annotations

from typing import Any

from watchword.v1 import audit_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError
from watchword_server.request import messages, pages
from watchword_server.request.pipeline import Call, Method
from watchword_server.rules.fields import Faults
from watchword_server.store.event_contract import EventLog, EventQuery

SERVICE = pb.DESCRIPTOR.services_by_name["AuditService"]


class AuditService:
    """The RPCs of watchword.v1.AuditService."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def methods(self) -> list[Method[Any]]:
        """What to register."""
        path = f"/{SERVICE.full_name}/ListEvents"
        return [Method(path, pb.ListEventsRequest, self.list_events)]

    async def list_events(self, call: Call[pb.ListEventsRequest]) -> pb.ListEventsResponse:
        """A page of events, newest first."""
        request = call.request
        limit = pages.page_size(request.page_size)
        faults = Faults()
        if request.actor:
            faults.name("actor", request.actor)
        faults.text("action", request.action)
        if faults.found:
            raise FieldsInvalidError(faults.found)
        events = await self._log.events(
            EventQuery(
                actor=request.actor,
                token_id=pages.token_id_of(request.token_id, "token_id") if request.token_id else None,
                action=request.action,
                since=messages.instant_of(request.since, "since") if request.HasField("since") else None,
                limit=limit + 1,
                before=pages.page_after_id(request.page_token),
                denied_only=request.denied_only,
            )
        )
        shown = pages.fitting(messages.event_message(event) for event in events[:limit])
        more = len(events) > len(shown)
        return pb.ListEventsResponse(
            events=shown,
            next_page_token=pages.page_token(shown[-1].event_id) if more else "",
        )
