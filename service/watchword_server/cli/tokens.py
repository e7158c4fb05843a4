"""`watchword tokens list|show`: the records of tokens, never their secrets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.options import Kind, LimitOption, PageTokenOption, duration
from watchword_server.cli.output import Column, instant_and_distance, message_json
from watchword_server.cli.pages import collect, note_more
from watchword_server.cli.secrets_input import read_secret
from watchword_server.cli.show_token import ends_at, kind_name, last_used, show_token, state_name

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import Token


def list_tokens(
    session: Session,
    *,
    subject: Annotated[str, typer.Option(help="Only this subject's.", show_default=False)] = "",
    issued_by: Annotated[
        str, typer.Option(metavar="TOKEN_ID", help="Only those issued by the token with this id.", show_default=False)
    ] = "",
    owner: Annotated[str, typer.Option(help="Only personal tokens of this owner.", show_default=False)] = "",
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    unused_for: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="Only those not used for so long, and older: 30d."),
    ] = None,
    expiring_within: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="Only those that end within so long: 7d."),
    ] = None,
    usage: Annotated[bool, typer.Option("--usage", help="Also who uses each, and when last.")] = False,
    all_states: Annotated[bool, typer.Option("--all-states", "-a", help="Also expired and revoked ones.")] = False,
    limit: LimitOption = 100,
    page_token: PageTokenOption = "",
) -> None:
    """List tokens, those that end first before others; live ones only unless asked otherwise."""
    from watchword.v1.token_service_pb2 import ListTokensRequest, ListTokensResponse

    def ask(page_size: int, page: str) -> ListTokensResponse:
        request = ListTokensRequest(
            subject=subject,
            issued_by=issued_by,
            include_inactive=all_states,
            page_size=page_size,
            page_token=page,
            owner=owner,
            with_usage=usage,
        )
        if kind is not None:
            request.kind = kind.message
        if unused_for is not None:
            request.unused_for.FromTimedelta(unused_for)
        if expiring_within is not None:
            request.expiring_within.FromTimedelta(expiring_within)
        return session.call(session.tokens.ListTokens, request)

    listed = collect(ask, lambda response: response.tokens, limit, page_token)
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    if not listed.tokens:
        output.note("No tokens." if all_states else "No live tokens. --all-states also lists expired and revoked ones.")
        return
    now = datetime.now(UTC)
    titles = ("state", "subject", "name", "scopes", "audiences", "ends_at")
    of_usage = ("last used", "uses", "used by") if usage else ()
    output.table(
        (Column("token_id", whole=True), *(Column(title) for title in (*titles, *of_usage))),
        ((*_cells(token, now), *(_usage_cells(token, now) if usage else ())) for token in listed.tokens),
    )
    note_more(output, listed.next_page_token)


def _cells(token: Token, now: datetime) -> Iterator[str]:
    yield token.token_id
    yield ", ".join(filter(None, (state_name(token), kind_name(token), "rotated" if token.successor_id else "")))
    yield f"{token.subject} (of {token.owner})" if token.owner else token.subject
    yield token.name
    yield " ".join(token.scopes)
    yield " ".join(token.audiences)
    yield instant_and_distance(ends_at(token), now)


def _usage_cells(token: Token, now: datetime) -> Iterator[str]:
    yield last_used(token, now)
    yield str(token.usage.use_count)
    yield " ".join(f"{use.service}({use.address})" if use.address else use.service for use in token.usage.services)


def show(
    session: Session,
    *,
    token_id: Annotated[
        str | None, typer.Argument(help="The public half. Without it, the whole token is read as `validate` does.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the token is. Default: standard input, or a prompt.")
    ] = None,
) -> None:
    """Show one token's record: its rights, its bindings, its lineage, and who uses it."""
    from watchword.v1.token_service_pb2 import GetTokenRequest

    if token_id is not None and file is None:
        request = GetTokenRequest(token_id=token_id)
    elif token_id is None:
        request = GetTokenRequest(token=read_secret(file, "Token to show the record of (not shown): "))
    else:
        raise typer.BadParameter("give an id or --file, not both")
    response = session.call(session.tokens.GetToken, request)
    if session.output.is_json:
        session.output.json(message_json(response))
    else:
        show_token(session.output, response.token)
