"""Revoke: end tokens for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from watchword.scope import missing_scopes
from watchword.token import ParsedToken
from watchword_server.answer.errors import FieldsInvalidError, GrantMissingError, ScopeMissingError
from watchword_server.answer.proof import Digests, proves
from watchword_server.rules.fields import Faults
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Revocation, Revoked, Selector, Snapshot, Store

_REVOKE: Final = "watchword.revoke"


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    """What is to end: a presented token, or those that `selector` names."""

    presented: ParsedToken | None
    selector: Selector
    reason: str = ""
    cascade: bool = False


class Revoking:
    """Ends tokens. How far that is known is `answer/propagate.py`'s."""

    def __init__(self, store: Store, digests: Digests) -> None:
        self._store = store
        self._digests = digests

    async def revoke(self, caller: TokenRecord, actor: Actor, order: RevokeOrder, snapshot: Snapshot) -> Revoked:
        """Ends what the order names, within the caller's reach.

        Raises FieldsInvalidError, ScopeMissingError, GrantMissingError (a single token named by id lies outside the
        caller's grants), PepperUnknownError, and the store's errors.
        """
        faults = Faults()
        faults.text("reason", order.reason)
        if order.selector.subject is not None:
            faults.name("subject", order.selector.subject)
        issued_before = order.selector.issued_before
        if issued_before is not None and issued_before > snapshot.now:
            # What will be issued cannot be named: it would not be ended.
            faults.add("all.issued_before", "lies in the future by the database's clock")
        if faults.found:
            raise FieldsInvalidError(faults.found)
        if order.presented is not None and order.cascade and missing_scopes(caller.scopes, [_REVOKE]):
            # Its secret is leave to end the token itself, and no leave to end what others got from it.
            raise ScopeMissingError(_REVOKE)
        revoked = await self._store.revoke(self._revocation(caller, actor, order, snapshot))
        if revoked.refused:
            raise GrantMissingError("the token lies outside the grants of the calling token")
        return revoked

    def _revocation(self, caller: TokenRecord, actor: Actor, order: RevokeOrder, snapshot: Snapshot) -> Revocation:
        if order.presented is None:
            return Revocation(order.selector, actor, order.reason, order.cascade, within=caller.grants)
        # Whoever holds the whole token may end it, whatever else they may do.
        token_id: UUID = order.presented.token_id
        return Revocation(
            Selector(token_id=token_id),
            actor,
            order.reason,
            order.cascade,
            within=caller.grants,
            proved=proves(self._digests, order.presented, snapshot.rows.get(token_id)),
        )
