"""`watchword audit list`: who did what."""

from __future__ import annotations

from watchword_server.cli.audit_events import (
    ActionOption,
    ActorOption,
    DeniedOption,
    EventFilter,
    SinceOption,
    TokenIdOption,
    event_cells,
)
from watchword_server.cli.connect import Session
from watchword_server.cli.options import LimitOption, PageTokenOption
from watchword_server.cli.output import Column, message_json
from watchword_server.cli.pages import collect, note_more


def list_events(
    session: Session,
    *,
    actor: ActorOption = "",
    token_id: TokenIdOption = "",
    action: ActionOption = "",
    denied: DeniedOption = False,
    since: SinceOption = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = "",
) -> None:
    """List recorded deeds, newest first: what changed something, what was looked at, and what was denied."""
    wanted = EventFilter(actor, token_id, action, denied)
    listed = collect(
        lambda page_size, page: wanted.page(session, page_size, page, since),
        lambda response: response.events,
        limit,
        page_token,
    )
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
        Column("outcome"),
        Column("actor"),
        Column("address"),
        Column("token_id", whole=True),
        Column("details"),
    )
    output.table(columns, (tuple(event_cells(event)) for event in listed.events))
    note_more(output, listed.next_page_token)
