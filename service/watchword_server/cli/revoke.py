"""`watchword revoke`: ends tokens, and says how far the news has reached."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import message_json
from watchword_server.cli.secrets_input import read_secret

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RevokeRequest, RevokeResponse

_PROMPT: Final = "Token to revoke (not shown): "
_COUNT_MAX: Final = 1_000


def revoke(
    session: Session,
    *,
    token_id: Annotated[str, typer.Option("--id", help="The token with this public half.", show_default=False)] = "",
    subject: Annotated[str, typer.Option(help="Every token of this subject.", show_default=False)] = "",
    issued_by: Annotated[
        str, typer.Option(metavar="TOKEN_ID", help="Every token issued by the one with this id.", show_default=False)
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="Where the token is. [default: standard input, or a prompt]")
    ] = None,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also everything these tokens issued, to the leaves.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="For the audit log: LEAKED, ROTATED, RETIRED, or words.", show_default=False)
    ] = "",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once it is durable, not once every verifier knows.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before revoking many.")] = False,
) -> None:
    """End tokens: one by its secret (standard input) or its id, or many by subject or issuer.

    Exit code 4 if nothing matched. Revoking twice does no harm.
    """
    from watchword.v1.token_service_pb2 import RevokeRequest

    if sum(map(bool, (token_id, subject, issued_by, file))) > 1:
        raise CommandError(
            "more than one thing to revoke was named",
            "Give one of --id, --subject, --issued-by, --file.",
            ExitCode.USAGE,
        )
    request = RevokeRequest(reason=reason, cascade=cascade, no_wait=no_wait)
    if token_id:
        request.token_id = token_id
    elif subject:
        request.subject = subject
    elif issued_by:
        request.issued_by = issued_by
    else:
        request.token = read_secret(file, _PROMPT)
    if not yes and (cascade or subject or issued_by):
        _confirm(session, request)
    started_at_seconds = time.monotonic()
    response = session.call(session.tokens.Revoke, request)
    _show(session, response, time.monotonic() - started_at_seconds)
    if response.revoked_count == 0:
        raise CommandError(
            "nothing matched: no token that was not already revoked",
            "Look it up: watchword tokens list --all-states (with --subject or --issued-by).",
            ExitCode.NOTHING_MATCHED,
            "NOTHING_MATCHED",
        )


def _confirm(session: Session, request: RevokeRequest) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            "this may revoke many tokens, and there is no terminal to ask on",
            "If that is meant, add --yes.",
            ExitCode.USAGE,
            "CONFIRMATION_NEEDED",
        )
    what = {
        "token": "this token",
        "token_id": f"the token {request.token_id}",
        "subject": f"every token of {request.subject!r}{_count(session, request)}",
        "issued_by": f"every token issued by {request.issued_by}{_count(session, request)}",
    }[request.WhichOneof("target") or "token"]
    with_descendants = " and everything issued with it, to the leaves" if request.cascade else ""
    session.output.note(f"This revokes {what}{with_descendants}. It cannot be undone.")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        session.output.note("Nothing was revoked.")
        raise typer.Exit(ExitCode.NO)


def _count(session: Session, request: RevokeRequest) -> str:
    """How many live ones there are, if the caller may know: a courtesy, which must not stand in a revocation's way."""
    from watchword.v1.token_service_pb2 import ListTokensRequest

    try:
        listed = session.call(
            session.tokens.ListTokens,
            ListTokensRequest(subject=request.subject, issued_by=request.issued_by, page_size=_COUNT_MAX),
        )
    except CommandError:
        return ""
    return f" ({'more than ' if listed.next_page_token else ''}{len(listed.tokens)} live)"


def _show(session: Session, response: RevokeResponse, elapsed_seconds: float) -> None:
    from watchword.v1.token_service_pb2 import Propagation

    output = session.output
    if output.is_json:
        output.json(message_json(response) | {"elapsed_seconds": round(elapsed_seconds, 6)})
        return
    took = format_duration(timedelta(seconds=elapsed_seconds))
    if response.revoked_count == 0:
        return
    if response.propagation == Propagation.PROPAGATION_COMPLETE:
        reached = f"COMPLETE in {took}: no verifier accepts {'it' if response.revoked_count == 1 else 'them'} any more"
    else:
        limit = timedelta(seconds=response.effective_in.seconds, microseconds=response.effective_in.nanos // 1000)
        reached = (
            f"PENDING after {took}: durable, and in effect everywhere within {format_duration(limit)}. "
            "Run the command again to wait for it."
        )
    output.record([("revoked", str(response.revoked_count)), ("propagation", reached)])
