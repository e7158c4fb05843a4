"""Ends the tokens that a scan found, each by presenting it whole: who holds a token may end it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from watchword.token import ParsedToken
from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError
from watchword_server.cli.propagation import dead, is_complete, tell_pending
from watchword_server.cli.revoke import revoked

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RevokeResponse
    from watchword_server.scan.find import Finding

REASON: Final = "LEAKED"


@dataclass(slots=True)
class Ended:
    """What became of the tokens that were found."""

    was_live: dict[ParsedToken, bool] = field(default_factory=dict)
    """Whether this ended the token. One that the server could not be asked about is not in it."""
    successors: dict[ParsedToken, str] = field(default_factory=dict)
    """The live successor of a token that was rotated, by id: it was not found, and lives on."""
    response: RevokeResponse | None = None
    """The answer that speaks for all of them, if any was live."""
    elapsed_seconds: float = 0.0
    error: CommandError | None = None
    """The first failure. The other tokens were tried all the same."""

    @property
    def is_pending(self) -> bool:
        return self.response is not None and not is_complete(self.response)

    @property
    def reached(self) -> str:
        """How far the news has come, in words; empty if there was none."""
        return dead(self.response, self.elapsed_seconds) if self.response is not None else ""


def revoke_found(session: Session, findings: Iterable[Finding], wait: timedelta, *, no_wait: bool) -> Ended:
    """Revokes each token once, and then waits for all of them together."""
    from watchword.v1.token_service_pb2 import RevokeRequest

    ended = Ended()
    began = time.monotonic()
    for token in dict.fromkeys(finding.token for finding in findings):
        request = RevokeRequest(token=token.text.decode("ascii"), reason=REASON, no_wait=True)
        try:
            response = session.call(session.tokens.Revoke, request)
        except CommandError as error:
            ended.error = ended.error or error
            continue
        ended.was_live[token] = response.revoked_count > 0
        if response.live_successor_id:
            ended.successors[token] = response.live_successor_id
        if response.revoked_count:
            ended.response = response
            last = request
    if ended.response is not None and not no_wait:
        last.no_wait = False
        try:
            # It ends nothing any more, and waits for all that was ended before it.
            ended.response, _ = revoked(session, last, wait)
        except CommandError as error:
            ended.error = ended.error or error
    ended.elapsed_seconds = time.monotonic() - began
    if ended.is_pending and not no_wait and ended.response is not None:
        tell_pending(session, ended.response)
    return ended
