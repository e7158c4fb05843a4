"""`watchword tokens narrow`: takes rights or life from a token, and says how far the news has reached."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import WAIT_DEFAULT, ForceOption, NoWaitOption, ReasonOption, WaitOption, duration
from watchword_server.cli.propagation import call_and_wait, check_wait, end_unless_complete, reached, waited_json
from watchword_server.cli.show_token import show_token


def narrow(
    session: Session,
    *,
    token_id: Annotated[str, typer.Argument(help="The token's public half.", show_default=False)],
    remove_scope: Annotated[
        list[str] | None, typer.Option(help="A scope to take away, exactly as the token holds it. Repeat for more.")
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="How long it is to live from now; never longer."),
    ] = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
    no_wait: NoWaitOption = False,
) -> None:
    """Take scopes from a token, or shorten its life. What it gives up does not come back.

    Waits as `revoke` does: exit code 7 while some verifier may still go by what it held before.
    """
    from watchword.v1.token_service_pb2 import NarrowRequest

    if not remove_scope and ttl is None:
        raise CommandError("nothing to take from it was named", "Give --remove-scope, --ttl, or both.", ExitCode.USAGE)
    check_wait(wait)
    request = NarrowRequest(
        token_id=token_id, remove_scopes=remove_scope or (), reason=reason, no_wait=no_wait, force=force
    )
    if ttl is not None:
        request.ttl.FromTimedelta(ttl)
    response, elapsed_seconds = call_and_wait(
        session, session.tokens.Narrow, request, None if no_wait else wait, "Narrowing"
    )
    if session.output.is_json:
        session.output.json(waited_json(response, elapsed_seconds))
    else:
        show_token(session.output, response.token)
        far = reached(
            response, elapsed_seconds, complete="gone everywhere", pending="narrowed for good, and gone everywhere"
        )
        session.output.record([("propagation", far)])
    if successor_id := response.live_successor_id:
        session.output.note(
            f"Its successor {successor_id} was left alone, and holds what it held. Take it from that one too: "
            f"watchword tokens narrow {successor_id} ..."
        )
    if not no_wait:
        end_unless_complete(session, response)
