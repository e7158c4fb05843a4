"""`watchword audit export`: the audit log as JSON lines, for an archive and for `db restored`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.audit_events import (
    ActionOption,
    ActorOption,
    DeniedOption,
    EventFilter,
    SinceOption,
    TokenIdOption,
)
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError
from watchword_server.cli.options import PageTokenOption
from watchword_server.cli.output import json_text, message_json
from watchword_server.cli.pages import pages
from watchword_server.cli.private_output import replacing
from watchword_server.cli.retries import insisting

if TYPE_CHECKING:
    from watchword.v1.audit_service_pb2 import ListEventsResponse

_NO_LIMIT: Final = sys.maxsize


def export(
    session: Session,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Where to write it, mode 0600, in one step once all is there. Default: stdout."),
    ] = None,
    actor: ActorOption = "",
    token_id: TokenIdOption = "",
    action: ActionOption = "",
    denied: DeniedOption = False,
    since: SinceOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default="all")] = None,
    page_token: PageTokenOption = "",
) -> None:
    """Write recorded deeds as JSON lines, an event a line, newest first: all there are, unless asked otherwise.

    An export that is a part ends with a line whose next_page_token says where it goes on. `db restored --audit` reads
    both.
    """
    export = _Export(session, EventFilter(actor, token_id, action, denied), since)
    lines = export.lines(limit, page_token)
    if file is None:
        for line in lines:
            session.output.line(line)
    else:
        with replacing(file) as write:
            write(f"{line}\n" for line in lines)
        session.output.note(f"{export.count} event{'s' * (export.count != 1)} in {file}.")


class _Export:
    """The events as lines, and how many there were."""

    def __init__(self, session: Session, wanted: EventFilter, since: datetime | None) -> None:
        self.count = 0
        self._session = session
        self._wanted = wanted
        self._since = since

    def lines(self, limit: int | None, page_token: str) -> Iterator[str]:
        """Page after page. Raises CommandError; the last line then says where it would have gone on."""
        going_on = page_token
        failure = None
        try:
            for page in pages(self._page, lambda response: response.events, limit or _NO_LIMIT, page_token):
                self.count += len(page.events)
                yield from (json_text(message_json(event)) for event in page.events)
                going_on = page.next_page_token
        except CommandError as error:
            failure = error
            if going_on:
                error.remedy += f"\nWhat is missing, into another file: the same command with --page-token {going_on}"
        if going_on:
            yield json_text({"events": [], "next_page_token": going_on})
        if failure is not None:
            raise failure

    def _page(self, size: int, page_token: str) -> ListEventsResponse:
        return insisting(self._session.output, lambda: self._wanted.page(self._session, size, page_token, self._since))
