"""Which audit events are meant, and how they are asked for and shown: what the commands below `audit` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.options import when
from watchword_server.cli.output import instant

if TYPE_CHECKING:
    from watchword.v1.audit_service_pb2 import AuditEvent, ListEventsResponse

ALLOWED: Final = "allowed"

ActorOption = Annotated[str, typer.Option(help="Only what this subject did, or tried to.", show_default=False)]
TokenIdOption = Annotated[str, typer.Option("--id", help="Only what is about this token.", show_default=False)]
ActionOption = Annotated[str, typer.Option(help="Only this action: issue, revoke, rotate ...", show_default=False)]
DeniedOption = Annotated[bool, typer.Option("--denied", help="Only what was denied.")]
SinceOption = Annotated[
    datetime | None,
    typer.Option(parser=when, metavar="WHEN", help="At or after: 2h, 7d, 2027-01-31T12:00:00Z."),
]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are meant. Empty: all."""

    actor: str = ""
    token_id: str = ""
    action: str = ""
    denied: bool = False

    def page(self, session: Session, size: int, page_token: str, since: datetime | None) -> ListEventsResponse:
        """One page of them, newest first. Raises CommandError."""
        from watchword.v1.audit_service_pb2 import ListEventsRequest

        request = ListEventsRequest(
            actor=self.actor,
            token_id=self.token_id,
            action=self.action,
            denied_only=self.denied,
            page_size=size,
            page_token=page_token,
        )
        if since is not None:
            request.since.FromDatetime(since)
        return session.call(session.audit.ListEvents, request)


def event_cells(event: AuditEvent) -> Iterator[str]:
    """An event's fields as people read them: when, what, how it ended, who, from where, about which token, and more."""
    yield instant(event.occurred_at)
    yield event.action
    yield event.outcome or ALLOWED
    yield event.actor
    yield event.address
    yield event.token_id
    yield "  ".join(f"{key}={event.details[key]}" for key in sorted(event.details))
