"""`watchword tokens list|show`: the records of tokens, never their secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.options import LimitOption, PageTokenOption
from watchword_server.cli.output import Column, instant_and_distance, message_json
from watchword_server.cli.pages import collect, note_more
from watchword_server.cli.secrets_input import read_secret
from watchword_server.cli.show_token import show_token, state_name


def list_tokens(
    session: Session,
    *,
    subject: Annotated[str, typer.Option(help="Only this subject's.", show_default=False)] = "",
    issued_by: Annotated[
        str, typer.Option(metavar="TOKEN_ID", help="Only those issued by the token with this id.", show_default=False)
    ] = "",
    all_states: Annotated[bool, typer.Option("--all-states", "-a", help="Also expired and revoked ones.")] = False,
    limit: LimitOption = 100,
    page_token: PageTokenOption = "",
) -> None:
    """List tokens, those that end first before others; live ones only unless asked otherwise."""
    from watchword.v1.token_service_pb2 import ListTokensRequest

    listed = collect(
        lambda page_size, page: session.call(
            session.tokens.ListTokens,
            ListTokensRequest(
                subject=subject,
                issued_by=issued_by,
                include_inactive=all_states,
                page_size=page_size,
                page_token=page,
            ),
        ),
        lambda response: response.tokens,
        limit,
        page_token,
    )
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    if not listed.tokens:
        output.note("No tokens." if all_states else "No live tokens. --all-states also lists expired and revoked ones.")
        return
    now = datetime.now(UTC)
    columns = (
        Column("token_id", whole=True),
        Column("state"),
        Column("subject"),
        Column("name"),
        Column("scopes"),
        Column("audiences"),
        Column("expires_at"),
    )
    output.table(
        columns,
        (
            (
                token.token_id,
                state_name(token),
                token.subject,
                token.name,
                " ".join(token.scopes),
                " ".join(token.audiences),
                instant_and_distance(token.expires_at, now),
            )
            for token in listed.tokens
        ),
    )
    note_more(output, listed.next_page_token)


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
    """Show one token's record."""
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
