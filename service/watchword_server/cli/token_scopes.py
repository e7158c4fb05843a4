"""`watchword tokens scopes`: which scopes tokens hold, and which of them nobody ever needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import LimitOption, PageTokenOption
from watchword_server.cli.output import Column, instant, message_json
from watchword_server.cli.pages import collect, note_more
from watchword_server.cli.show_token import last_used

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import ListTokensResponse, Token


def token_scopes(
    session: Session,
    *,
    token_id: Annotated[
        str, typer.Argument(help="Only this token's. Without it, those of every live token.", show_default=False)
    ] = "",
    subject: Annotated[str, typer.Option(help="Only this subject's tokens.", show_default=False)] = "",
    unused: Annotated[bool, typer.Option("--unused", help="Only scopes that no use of the token ever needed.")] = False,
    limit: LimitOption = 1_000,
    page_token: PageTokenOption = "",
) -> None:
    """Show which scopes live tokens hold and who needed them, as far as verifiers have told.

    With --unused the exit code is 1 if a token holds a scope that it never needed, 0 if none does; 4 if none matched.
    """
    if token_id and (subject or page_token):
        raise typer.BadParameter("a token's id says all: leave --subject and --page-token away")
    listed = _listed(session, token_id, subject, limit, page_token)
    if not listed.tokens:
        raise CommandError(
            "no live token matched",
            "Look it up: watchword tokens list --all-states",
            ExitCode.NOTHING_MATCHED,
            "NOTHING_MATCHED",
        )
    found = any(token.usage.unused_scopes for token in listed.tokens)
    if unused:
        shown = [token for token in listed.tokens if token.usage.unused_scopes]
        del listed.tokens[:]
        listed.tokens.extend(shown)
    output = session.output
    if output.is_json:
        output.json({"tokens": [_fields(token) for token in listed.tokens], "next_page_token": listed.next_page_token})
    elif listed.tokens:
        _show(session, listed, unused)
    elif unused:
        output.note("Every scope of every one of these tokens was needed.")
    if unused and found:
        raise typer.Exit(ExitCode.NO)


def _listed(session: Session, token_id: str, subject: str, limit: int, page_token: str) -> ListTokensResponse:
    from watchword.v1.token_service_pb2 import GetTokenRequest, ListTokensRequest, ListTokensResponse

    if token_id:
        found = session.call(session.tokens.GetToken, GetTokenRequest(token_id=token_id))
        return ListTokensResponse(tokens=[found.token])
    return collect(
        lambda page_size, page: session.call(
            session.tokens.ListTokens,
            ListTokensRequest(subject=subject, with_usage=True, page_size=page_size, page_token=page),
        ),
        lambda response: response.tokens,
        limit,
        page_token,
    )


def _show(session: Session, listed: ListTokensResponse, unused: bool) -> None:
    now = datetime.now(UTC)
    session.output.table(
        (
            *(Column(title, whole=True) for title in ("token_id", "scope")),
            *(Column(title) for title in ("needed by", "known since", "token last used", "subject", "name")),
        ),
        (
            (
                token.token_id,
                scope,
                "nobody" if scope in token.usage.unused_scopes else " ".join(services),
                instant(token.created_at),
                last_used(token, now),
                token.subject,
                token.name,
            )
            for token in listed.tokens
            for scope, services in _needed(token).items()
            if not unused or scope in token.usage.unused_scopes
        ),
    )
    if unused:
        session.output.note(
            "What a token does not need can be taken from it: watchword tokens narrow TOKEN_ID --remove-scope SCOPE.\n"
            "Known is what verifiers told since the token was made; a scope may be for what is done once a year."
        )
    note_more(session.output, listed.next_page_token)


def _needed(token: Token) -> Mapping[str, list[str]]:
    """Each scope that the token holds, with the services where a use is known to have needed it."""
    from watchword.scope import covers

    return {
        scope: [use.service for use in token.usage.services if any(covers(scope, one) for one in use.scopes)]
        for scope in token.scopes
    }


def _fields(token: Token) -> dict[str, object]:
    fields = message_json(token)
    return {name: fields[name] for name in ("token_id", "subject", "name", "created_at", "scopes")} | {
        "unused_scopes": list(token.usage.unused_scopes),
        "needed_by": dict(_needed(token)),
        "last_used_at": token.usage.last_used_at.ToJsonString() if token.usage.HasField("last_used_at") else None,
    }
