"""`watchword audit list`: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.options import LimitOption, PageTokenOption, when
from watchword_server.cli.output import Column, instant, message_json
from watchword_server.cli.pages import collect, note_more


def list_events(
    session: Session,
    *,
    actor: Annotated[str, typer.Option(help="Only what this subject did.", show_default=False)] = "",
    token_id: Annotated[str, typer.Option("--id", help="Only what is about this token.", show_default=False)] = "",
    action: Annotated[
        str, typer.Option(help="Only issue, revoke, register_scopes or restored.", show_default=False)
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(parser=when, metavar="WHEN", help="At or after: 2h, 7d, 2027-01-31T12:00:00Z."),
    ] = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = "",
) -> None:
    """List recorded deeds, newest first."""
    from watchword.v1.audit_service_pb2 import ListEventsRequest, ListEventsResponse

    def ask(page_size: int, page: str) -> ListEventsResponse:
        request = ListEventsRequest(actor=actor, token_id=token_id, action=action, page_size=page_size, page_token=page)
        if since is not None:
            request.since.FromDatetime(since)
        return session.call(session.audit.ListEvents, request)

    listed = collect(ask, lambda response: response.events, limit, page_token)
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    if not listed.events:
        output.note("No events.")
        return
    columns = (
        Column("occurred_at", whole=True),
        Column("action"),
        Column("actor"),
        Column("address"),
        Column("token_id", whole=True),
        Column("details"),
    )
    output.table(
        columns,
        (
            (
                instant(event.occurred_at),
                event.action,
                event.actor,
                event.address,
                event.token_id,
                "  ".join(f"{key}={event.details[key]}" for key in sorted(event.details)),
            )
            for event in listed.events
        ),
    )
    note_more(output, listed.next_page_token)
