"""Narrow: take rights from a token, or shorten its life."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from watchword_server.answer.errors import (
    FieldsInvalidError,
    GrantMissingError,
    TokenNotFoundError,
    TokenNotLiveError,
)
from watchword_server.rules.fields import TTL_MIN, Faults
from watchword_server.rules.grants import covers_token
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Narrowed, Narrowing, Reads, ScopesNotHeld, Store, TokenNotLive


@dataclass(frozen=True, slots=True)
class NarrowOrder:
    """What a token is to lose: scopes, and life beyond `ttl` from now."""

    token_id: UUID
    remove_scopes: tuple[str, ...] = ()
    ttl: timedelta | None = None
    reason: str = ""
    force: bool = False


class Narrower:
    """Narrows tokens. How far that is known is `answer/propagate.py`'s."""

    def __init__(self, store: Store, reads: Reads) -> None:
        self._store = store
        self._reads = reads

    async def narrow(self, caller: TokenRecord, actor: Actor, order: NarrowOrder) -> Narrowed:
        """Narrows a token that lies within one of the caller's grants.

        Raises FieldsInvalidError, TokenNotFoundError, GrantMissingError, TokenNotLiveError, LastAdministratorError, and
        the store's errors.
        """
        self._check(order)
        snapshot = await self._reads.read((order.token_id,))
        record = snapshot.rows.get(order.token_id)
        if record is None:
            raise TokenNotFoundError
        # Before anything is told about it: whoever cannot reach it learns no more than that.
        if not covers_token(caller.grants, record):
            raise GrantMissingError("the token lies outside the grants of the calling token")
        left = record.expires_at - snapshot.now
        if order.ttl is not None and left > timedelta() and order.ttl > left:
            raise FieldsInvalidError([("ttl", "would have the token end later than it does")])
        narrowing = Narrowing(
            token_id=order.token_id,
            remove_scopes=order.remove_scopes,
            life=order.ttl,
            actor=actor,
            reason=order.reason,
            within=caller.grants,
            force=order.force,
        )
        match await self._store.narrow(narrowing):
            case Narrowed() as narrowed:
                if narrowed.refused:
                    raise GrantMissingError("the token lies outside the grants of the calling token")
                return narrowed
            case ScopesNotHeld(scopes):
                raise FieldsInvalidError(
                    [
                        (f"remove_scopes[{order.remove_scopes.index(scope)}]", "is not held by the token as it stands")
                        for scope in scopes
                    ]
                )
            case TokenNotLive():
                raise TokenNotLiveError

    def _check(self, order: NarrowOrder) -> None:
        faults = Faults()
        faults.scope_patterns("remove_scopes", order.remove_scopes)
        faults.text("reason", order.reason)
        if order.ttl is None and not order.remove_scopes:
            faults.add("remove_scopes", "is required, or ttl is")
        if order.ttl is not None and order.ttl < TTL_MIN:
            faults.add("ttl", "must be at least 1 s; to end the token now, revoke it")
        if faults.found:
            raise FieldsInvalidError(faults.found)
