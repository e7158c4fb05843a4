"""Issue: make a token, within what the caller may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from watchword.token import ParsedToken, new_token, new_token_id
from watchword_server.answer.errors import (
    CallerUnknownError,
    FieldsInvalidError,
    GrantMissingError,
    RequestIdUsedError,
)
from watchword_server.answer.proof import Digests
from watchword_server.rules.fields import Faults, unknown_scopes
from watchword_server.rules.grants import covering_grant
from watchword_server.rules.tokens import Grant, TokenRecord
from watchword_server.store.contract import Actor, Issued, IssuerGone, NewToken, RequestIdUsed, Store

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
TTL_MIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class IssueOrder:
    """What is asked for. `ttl` None is the default."""

    subject: str
    audiences: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    ttl: timedelta | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """The new token. `token` holds the secret, here and nowhere else."""

    token: ParsedToken
    record: TokenRecord


class Issuing:
    """Issues tokens. Keeps the names of the catalogue, which only ever grows: a miss reads it anew."""

    def __init__(
        self, store: Store, digests: Digests, *, token_prefix: str, ttl_default: timedelta, ttl_max: timedelta
    ) -> None:
        self._store = store
        self._digests = digests
        self._token_prefix = token_prefix
        self._ttl_default = ttl_default
        self._ttl_max = ttl_max
        self._catalogue: frozenset[str] = frozenset()

    async def issue(self, caller: TokenRecord, actor: Actor, order: IssueOrder, now: datetime) -> IssuedToken:
        """Issues for an authenticated caller. `now` is the database's clock at the read that authenticated it.

        Raises FieldsInvalidError, GrantMissingError, RequestIdUsedError, CallerUnknownError (the caller was revoked
        meanwhile), and the store's errors.
        """
        await self._check(order)
        within = covering_grant(
            caller.grants,
            subject=order.subject,
            scopes=order.scopes,
            audiences=order.audiences,
            grants=order.grants,
        )
        if within is None:
            raise GrantMissingError(
                "no single grant of the calling token covers these scopes, subject, audiences and grants together"
            )
        return await self._store_new(order, now, actor, issued_by=caller.token_id)

    async def issue_unasked(self, order: IssueOrder, now: datetime, actor: Actor) -> IssuedToken:
        """Issues with nobody's authority but that over the server's own machine: bootstrap."""
        await self._check(order)
        return await self._store_new(order, now, actor, issued_by=None)

    async def _check(self, order: IssueOrder) -> None:
        faults = Faults()
        faults.name("subject", order.subject)
        faults.scope_patterns("scopes", order.scopes)
        faults.audiences("audiences", order.audiences)
        faults.grants("grants", order.grants)
        faults.text("name", order.name)
        faults.metadata("metadata", order.metadata)
        faults.request_id("request_id", order.request_id)
        if order.ttl is not None and not TTL_MIN <= order.ttl <= self._ttl_max:
            faults.add("ttl", f"must be from 1 s to {int(self._ttl_max.total_seconds())} s (the server's maximum)")
        if not faults.found:
            faults.carried(order.scopes, order.audiences, order.metadata)
            faults.grants_together("grants", order.grants)
        if not faults.found:
            await self._check_catalogued(order.scopes, faults)
        if faults.found:
            raise FieldsInvalidError(faults.found)

    async def _check_catalogued(self, scopes: Sequence[str], faults: Faults) -> None:
        unknown = unknown_scopes(scopes, self._catalogue)
        if unknown:
            self._catalogue = await self._store.scope_names()
            unknown = unknown_scopes(scopes, self._catalogue)
        for scope, description in unknown:
            faults.add(f"scopes[{scopes.index(scope)}]", description)

    async def _store_new(
        self, order: IssueOrder, now: datetime, actor: Actor, *, issued_by: UUID | None
    ) -> IssuedToken:
        ttl = order.ttl if order.ttl is not None else self._ttl_default
        # The id carries the end in whole milliseconds, and the row must not outlive its id.
        ends_at_ms = (now + ttl - _UNIX_EPOCH) // _MILLISECOND
        expires_at = _UNIX_EPOCH + ends_at_ms * _MILLISECOND
        token_id = new_token_id(ends_at_ms)
        token = new_token(token_id, self._token_prefix)
        record = TokenRecord(
            token_id=token_id,
            pepper_version=self._digests.current,
            digest=self._digests.digest(token.text),
            subject=order.subject,
            audiences=order.audiences,
            scopes=order.scopes,
            grants=order.grants,
            created_at=now,
            expires_at=expires_at,
            issued_by=issued_by,
            name=order.name,
            metadata=order.metadata,
        )
        outcome = await self._store.issue(NewToken(record, actor, order.request_id))
        match outcome:
            case Issued(created_at):
                return IssuedToken(token, record._replace(created_at=created_at))
            case RequestIdUsed(used_for):
                raise RequestIdUsedError(used_for)
            case IssuerGone():
                raise CallerUnknownError("TOKEN_INACTIVE", "the calling token is no longer active")
