"""Who is calling Watchword itself. The same rules as for everyone's callers, with the audience `watchword`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from watchword.token import ParsedToken
from watchword_server.answer.errors import CallerUnknownError, ScopeMissingError
from watchword_server.answer.proof import Digests, examine
from watchword_server.rules.tokens import WATCHWORD, Grant, TokenRecord
from watchword_server.rules.verdicts import Reason
from watchword_server.store.contract import Actor, Snapshot


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller."""

    record: TokenRecord
    peer: Callable[[], str]
    """Its network address; asked for only where it is written down."""

    @property
    def subject(self) -> str:
        """Who it stands for."""
        return self.record.subject

    @property
    def token_id(self) -> UUID:
        """The id of its token."""
        return self.record.token_id

    @property
    def grants(self) -> Sequence[Grant]:
        """What it may issue."""
        return self.record.grants

    @property
    def actor(self) -> Actor:
        """As the audit log has it."""
        return Actor(self.record.subject, self.record.token_id, self.peer())


def authenticate(
    digests: Digests, token: ParsedToken, snapshot: Snapshot, *, required: Sequence[str], peer: Callable[[], str]
) -> Caller:
    """The caller, or CallerUnknownError, ScopeMissingError, PepperUnknownError.

    A token good for other services only is refused here as any inactive one: a service cannot replay to Watchword a
    bearer token that it received (test_token_for_another_audience_is_refused).
    """
    verdict = examine(digests, token, snapshot, verifier=WATCHWORD, required=required)
    if verdict.reason is Reason.ACTIVE:
        assert verdict.record is not None
        return Caller(verdict.record, peer)
    if verdict.reason is Reason.SCOPE_MISSING:
        raise ScopeMissingError(verdict.missing[0])
    raise CallerUnknownError("TOKEN_INACTIVE", "the calling token is not active, or not meant for Watchword")
