"""Rotate: a successor with the same rights, and an end for the token that it succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from watchword.token import ParsedToken, expires_at_ms
from watchword_server.answer.errors import (
    CallerUnknownError,
    FieldsInvalidError,
    GrantMissingError,
    SubjectBlockedError,
    TokenNotFoundError,
    TokenNotLiveError,
    TokenRotatedError,
)
from watchword_server.answer.mint import Mint
from watchword_server.rules.fields import TTL_MIN, Faults, seconds_text
from watchword_server.rules.grants import covers_token
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import (
    Actor,
    AlreadyRotated,
    IssuerGone,
    Reads,
    Rotated,
    Rotation,
    Store,
    SubjectBlocked,
    TokenNotLive,
)

_AT_ONCE: Final = timedelta()
_ATTEMPT_MAX: Final = 2**63 - 1
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RotateOrder:
    """What is asked for. `token_id` None is the calling token; `ttl` and `grace` None are the defaults."""

    token_id: UUID | None = None
    ttl: timedelta | None = None
    grace: timedelta | None = None
    request_id: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class RotatedToken:
    """The successor, whose secret is in `token`, here and nowhere else; and what became of the rotated one."""

    token: ParsedToken
    outcome: Rotated
    at_once: bool
    """The rotated token ended there and then."""


class Rotating:
    """Rotates tokens. How far the end of the old one is known is `answer/propagate.py`'s."""

    def __init__(
        self,
        store: Store,
        reads: Reads,
        mint: Mint,
        *,
        ttl_max: timedelta,
        grace_default: timedelta,
        grace_max: timedelta,
    ) -> None:
        self._store = store
        self._reads = reads
        self._mint = mint
        self._ttl_max = ttl_max
        self._grace_default = grace_default
        self._grace_max = grace_max

    async def rotate(self, caller: TokenRecord, actor: Actor, order: RotateOrder, now: datetime) -> RotatedToken:
        """Rotates for an authenticated caller. `now` is the database's clock at the read that authenticated it.

        Raises FieldsInvalidError, TokenNotFoundError, GrantMissingError (of another's token), TokenRotatedError,
        TokenNotLiveError, SubjectBlockedError, CallerUnknownError (the caller was revoked meanwhile), and the store's
        errors.
        """
        self._check(order)
        rotated = caller if order.token_id in (None, caller.token_id) else await self._another(caller, order)
        minted = self._mint.token(self._ends_at(rotated, order.ttl, now))
        successor = rotated._replace(
            token_id=minted.token.token_id,
            pepper_version=minted.pepper_version,
            digest=minted.digest,
            digest_scheme=minted.digest_scheme,
            created_at=now,
            expires_at=minted.expires_at,
            idle_expires_at=self._mint.idle_expires_at(rotated.idle_timeout, now),
            lineage_id=rotated.lineage,
            predecessor_id=rotated.token_id,
            successor_id=None,
            rotated_at=None,
        )
        grace = self._grace_default if order.grace is None else order.grace
        rotation = Rotation(
            rotated_id=rotated.token_id,
            successor=successor,
            grace=grace,
            actor=actor,
            as_issuer=rotated is not caller,
            request_id=order.request_id,
            attempt=order.attempt,
        )
        match await self._store.rotate(rotation):
            case Rotated() as outcome:
                return RotatedToken(minted.token, outcome, grace == _AT_ONCE)
            case AlreadyRotated(successor_id):
                raise TokenRotatedError(successor_id)
            case TokenNotLive():
                raise TokenNotLiveError
            case SubjectBlocked(subject):
                raise SubjectBlockedError(subject)
            case IssuerGone():
                raise CallerUnknownError("TOKEN_INACTIVE", "the calling token is no longer active")

    def _check(self, order: RotateOrder) -> None:
        faults = Faults()
        if order.ttl is not None and order.ttl < TTL_MIN:
            faults.add("ttl", "must be at least 1 s")
        if order.grace is not None and not _AT_ONCE <= order.grace <= self._grace_max:
            faults.add("grace", f"must be from 0 to {seconds_text(self._grace_max)} (the server's maximum)")
        faults.request_id("request_id", order.request_id)
        if order.attempt > _ATTEMPT_MAX:
            faults.add("attempt", f"must be at most {_ATTEMPT_MAX}")
        if faults.found:
            raise FieldsInvalidError(faults.found)

    async def _another(self, caller: TokenRecord, order: RotateOrder) -> TokenRecord:
        """Another's token, if a single grant of the caller covers it whole."""
        assert order.token_id is not None
        record = (await self._reads.read((order.token_id,))).rows.get(order.token_id)
        if record is None:
            raise TokenNotFoundError
        if not covers_token(caller.grants, record):
            raise GrantMissingError("no single grant of the calling token covers all that this token may do")
        return record

    def _ends_at(self, rotated: TokenRecord, ttl: timedelta | None, now: datetime) -> datetime:
        """When the successor ends, if nothing cut the rotated token's own life short: that is the store's to see."""
        made_to_end_at = datetime.fromtimestamp(expires_at_ms(rotated.token_id) / 1000, UTC)
        # Whole seconds: the row is a little younger than the id in which its end is written.
        life_max = _SECOND * -((rotated.created_at - made_to_end_at) // _SECOND)
        if ttl is not None and ttl > life_max:
            raise FieldsInvalidError(
                [("ttl", f"must be at most {seconds_text(life_max)}, as long as the rotated token was made to live")]
            )
        return now + min(life_max if ttl is None else ttl, self._ttl_max)
