"""`watchword whoami`: the own token's record and use, for whoever holds it."""

from __future__ import annotations

from watchword_server.cli.connect import Session
from watchword_server.cli.output import message_json
from watchword_server.cli.show_token import show_token


def whoami(session: Session) -> None:
    """Show the record of the token that you call with, and who uses it. Needs no scope."""
    from watchword.v1.token_service_pb2 import WhoAmIRequest

    response = session.call(session.tokens.WhoAmI, WhoAmIRequest())
    if session.output.is_json:
        session.output.json(message_json(response))
    else:
        show_token(session.output, response.token)
