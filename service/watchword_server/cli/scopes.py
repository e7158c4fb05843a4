"""`watchword scopes list|register`: the catalogue of what tokens may be good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import LimitOption, PageTokenOption
from watchword_server.cli.output import Column, instant, message_json
from watchword_server.cli.pages import collect, note_more
from watchword_server.cli.secrets_input import read_secret

_FILE_BYTES_MAX: Final = 1 << 20


def list_scopes(
    session: Session,
    *,
    token_id: Annotated[str, typer.Option("--id", help="The scopes of this token.", show_default=False)] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="The scopes of the token in this file; - is standard input.")
    ] = None,
    limit: LimitOption = 1_000,
    page_token: PageTokenOption = "",
) -> None:
    """List the catalogue, or the scopes of one token."""
    from watchword.v1.token_service_pb2 import ListScopesRequest, ListScopesResponse

    if token_id and file is not None:
        raise typer.BadParameter("give --id or --file, not both")
    secret = read_secret(file, "Token (not shown): ") if file is not None else ""

    def ask(page_size: int, page: str) -> ListScopesResponse:
        request = ListScopesRequest(page_size=page_size, page_token=page)
        if secret:
            request.token = secret
        elif token_id:
            request.token_id = token_id
        return session.call(session.tokens.ListScopes, request)

    listed = collect(ask, lambda response: response.scopes, limit, page_token)
    output = session.output
    if output.is_json:
        output.json(message_json(listed))
        return
    if not listed.scopes:
        output.note("No scopes." if token_id or secret else "No scopes yet: watchword scopes register NAME:DESCRIPTION")
        return
    columns = (
        Column("name", whole=True),
        Column("description"),
        Column("owner"),
        Column("live_tokens"),
        Column("counted_at"),
    )
    output.table(
        columns,
        (
            (
                scope.name,
                scope.description,
                scope.owner,
                f"about {scope.live_tokens}" if scope.HasField("counted_at") else "",
                instant(scope.counted_at) if scope.HasField("counted_at") else "",
            )
            for scope in listed.scopes
        ),
    )
    note_more(output, listed.next_page_token)


def register(
    session: Session,
    *,
    scopes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME:DESCRIPTION]...", help="Such as 'orders.read:See orders'.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Lines of NAME:DESCRIPTION; # begins a comment line.")
    ] = None,
) -> None:
    """Put scopes into the catalogue, owned by your token's subject. All or nothing; one's own again is an update."""
    from watchword.v1.token_service_pb2 import RegisterScopesRequest, ScopeRegistration

    texts = [*(scopes or ()), *(_lines(file) if file is not None else ())]
    if not texts:
        raise typer.BadParameter("name a scope as NAME:DESCRIPTION, or give --file")
    registrations = []
    for text in texts:
        name, _, description = text.partition(":")
        registrations.append(ScopeRegistration(name=name.strip(), description=description.strip()))
    response = session.call(session.tokens.RegisterScopes, RegisterScopesRequest(scopes=registrations))
    if session.output.is_json:
        session.output.json(message_json(response))
    else:
        session.output.line(
            f"{response.registered_count} new, {len(registrations) - response.registered_count} updated"
        )


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_FILE_BYTES_MAX + 1)
        if len(raw) > _FILE_BYTES_MAX:
            raise ValueError("it is larger than 1 MiB")
        text = raw.decode("utf-8")
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(
            f"cannot read scopes from {file}: {problem}",
            "Give a UTF-8 text file with a line of NAME:DESCRIPTION for each scope.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        ) from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
