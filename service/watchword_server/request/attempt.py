"""One administrative call, as the audit log will have it: who called, what about, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.message import Message

from watchword.token import MalformedTokenError, ParsedToken, parse_token_id
from watchword_server.request.audit_trail import AuditTrail
from watchword_server.request.status import Answer, denial_in
from watchword_server.rules.fields import Faults
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Snapshot
from watchword_server.store.event_contract import Event


class AuditedMethod:
    """One administrative method. `writes`: what it does is recorded where it is done."""

    def __init__(self, trail: AuditTrail, action: str, *, writes: bool) -> None:
        self.trail = trail
        self.action = action
        self.writes = writes

    def attempt(self, context: Any) -> Attempt:
        """A call that begins."""
        return Attempt(self, context)


class Attempt:
    """One administrative call: the pipeline tells what it learns on the way."""

    __slots__ = ("_bearer", "_claimed", "_context", "_method", "_request", "_tokens")

    def __init__(self, method: AuditedMethod, context: Any) -> None:
        self._method = method
        self._context = context
        self._bearer: ParsedToken | None = None
        self._claimed: TokenRecord | None = None
        self._request: Message | None = None
        self._tokens: Sequence[ParsedToken | None] = ()

    def claims(self, bearer: ParsedToken, snapshot: Snapshot) -> None:
        """Whose token it carries, if the secret is right."""
        self._bearer = bearer
        self._claimed = snapshot.rows.get(bearer.token_id)

    def is_from(self, caller: TokenRecord) -> None:
        """Whose token it carries."""
        self._claimed = caller

    def asks(self, request: Message | None, tokens: Sequence[ParsedToken | None]) -> None:
        """What it asks for, and which tokens it presents."""
        self._request, self._tokens = request, tokens

    def allowed(self) -> None:
        """It was answered. Recorded here if it changed nothing."""
        action = self._method.action
        if self._method.writes:
            if not getattr(self._request, "dry_run", False):
                return
            # By a name of its own: who ends tokens anew after a restore goes by what `revoke` events name.
            action = f"preview_{action}"
        self._method.trail.add(Event(action, self._actor(self._claimed), self._target(), self._details()))

    def denied(self, answer: Answer) -> None:
        """It was refused. Recorded if that was decided, and not for want of time, room or a database."""
        outcome = denial_in(answer)
        if not outcome:
            return
        # Every other refusal comes after the caller has proved its token.
        proved = answer[0] is not grpc.StatusCode.UNAUTHENTICATED
        details = self._details()
        if not proved and self._bearer is not None:
            details["claimed_token_id"] = self._bearer.id_text
        actor = self._actor(self._claimed if proved else None)
        self._method.trail.add_denied(Event(self._method.action, actor, self._target(), details, outcome=outcome))

    def _actor(self, caller: TokenRecord | None) -> Actor:
        address = self._context.peer()
        return Actor("", None, address) if caller is None else Actor(caller.subject, caller.token_id, address)

    def _target(self) -> UUID | None:
        """The token that the request names. Of a presented one the public half, as it says of itself."""
        for token in self._tokens:
            return None if token is None else token.token_id
        try:
            return parse_token_id(getattr(self._request, "token_id", ""))
        except MalformedTokenError:
            return None

    def _details(self) -> dict[str, str]:
        """The subject that the request names, if it could be one: what it is not may be megabytes of anything."""
        subject = getattr(self._request, "subject", "")
        faults = Faults()
        faults.name("subject", subject)
        return {} if faults.found else {"subject": subject}
