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
from watchword_server.store.contract import Actor, Preview, Revocation, Revoked, Selector, Snapshot, Store

_REVOKE: Final = "watchword.revoke"


@dataclass(frozen=True, slots=True)
class RevokeOrder:
    """What is to end: a presented token, or those that `selector` names."""

    presented: ParsedToken | None
    selector: Selector
    reason: str = ""
    cascade: bool = False
    force: bool = False


class Revoking:
    """Ends tokens. How far that is known is `answer/propagate.py`'s."""

    def __init__(self, store: Store, digests: Digests) -> None:
        self._store = store
        self._digests = digests

    async def revoke(self, caller: TokenRecord, actor: Actor, order: RevokeOrder, snapshot: Snapshot) -> Revoked:
        """Ends what the order names, within the caller's reach.

        Raises FieldsInvalidError, ScopeMissingError, GrantMissingError (a single token named by id lies outside the
        caller's grants), LastAdministratorError, PepperUnknownError, and the store's errors.
        """
        _check(caller, order, snapshot)
        revoked = await self._store.revoke(self._revocation(caller, actor, order, snapshot))
        if revoked.refused:
            raise _out_of_reach()
        return revoked

    async def preview(self, caller: TokenRecord, actor: Actor, order: RevokeOrder, snapshot: Snapshot) -> Preview:
        """What `revoke` would end. Raises what that raises, save LastAdministratorError: nothing is done."""
        _check(caller, order, snapshot)
        preview = await self._store.preview(self._revocation(caller, actor, order, snapshot))
        if preview.refused:
            raise _out_of_reach()
        return preview

    def _revocation(self, caller: TokenRecord, actor: Actor, order: RevokeOrder, snapshot: Snapshot) -> Revocation:
        if order.presented is None:
            return Revocation(
                order.selector, actor, order.reason, order.cascade, within=caller.grants, force=order.force
            )
        # Whoever holds the whole token may end it, whatever else they may do.
        token_id: UUID = order.presented.token_id
        return Revocation(
            Selector(token_id=token_id),
            actor,
            order.reason,
            order.cascade,
            within=caller.grants,
            proved=proves(self._digests, order.presented, snapshot.rows.get(token_id)),
            force=order.force,
        )


def _check(caller: TokenRecord, order: RevokeOrder, snapshot: Snapshot) -> None:
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


def _out_of_reach() -> GrantMissingError:
    return GrantMissingError("the token lies outside the grants of the calling token")
