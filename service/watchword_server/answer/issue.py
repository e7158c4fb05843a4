"""Issue: make a token, within what the caller may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from watchword.token import ParsedToken
from watchword_server.answer.errors import (
    CallerUnknownError,
    FieldsInvalidError,
    GrantMissingError,
    RequestIdUsedError,
    SubjectBlockedError,
)
from watchword_server.answer.mint import Mint
from watchword_server.rules.fields import TTL_MIN, Faults, seconds_text, unknown_scopes
from watchword_server.rules.grants import covering_grant
from watchword_server.rules.tokens import Grant, TokenKind, TokenRecord
from watchword_server.store.contract import (
    Actor,
    Issued,
    IssuerGone,
    NewToken,
    RequestIdUsed,
    Store,
    SubjectBlocked,
)


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
    kind: TokenKind = TokenKind.SERVICE
    owner: str = ""
    idle_timeout: timedelta | None = None
    allowed_networks: tuple[str, ...] = ()
    certificate_sha256: bytes = b""
    tied: bool = False
    """Dies with the lineage of the calling token."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """The new token. `token` holds the secret, here and nowhere else."""

    token: ParsedToken
    record: TokenRecord


class Issuing:
    """Issues tokens. Keeps the names of the catalogue, which only ever grows: a miss reads it anew."""

    def __init__(self, store: Store, mint: Mint, *, ttl_default: timedelta, ttl_max: timedelta) -> None:
        self._store = store
        self._mint = mint
        self._ttl_default = ttl_default
        self._ttl_max = ttl_max
        self._catalogue: frozenset[str] = frozenset()

    async def issue(self, caller: TokenRecord, actor: Actor, order: IssueOrder, now: datetime) -> IssuedToken:
        """Issues for an authenticated caller. `now` is the database's clock at the read that authenticated it.

        Raises FieldsInvalidError, GrantMissingError, SubjectBlockedError, RequestIdUsedError, CallerUnknownError (the
        caller was revoked meanwhile), and the store's errors.
        """
        order = await self._checked(order)
        within = covering_grant(
            caller.grants,
            subject=order.subject,
            scopes=order.scopes,
            audiences=order.audiences,
            grants=order.grants,
            owner=order.owner,
        )
        if within is None:
            raise GrantMissingError(
                "no single grant of the calling token covers these scopes, subject, owner, audiences and grants"
                " together"
            )
        return await self._store_new(order, now, actor, issuer=caller)

    async def issue_unasked(self, order: IssueOrder, now: datetime, actor: Actor) -> IssuedToken:
        """Issues with nobody's authority but that over the server's own machine: bootstrap."""
        if order.tied:
            raise FieldsInvalidError([("tied", "there is no calling token that it could be tied to")])
        return await self._store_new(await self._checked(order), now, actor, issuer=None)

    async def _checked(self, order: IssueOrder) -> IssueOrder:
        """The order with its networks in their canonical form. Raises FieldsInvalidError with every fault."""
        faults = Faults()
        faults.name("subject", order.subject)
        faults.scope_patterns("scopes", order.scopes)
        faults.audiences("audiences", order.audiences)
        faults.grants("grants", order.grants)
        faults.text("name", order.name)
        faults.metadata("metadata", order.metadata)
        faults.request_id("request_id", order.request_id)
        ttl_known = order.ttl is None or TTL_MIN <= order.ttl <= self._ttl_max
        if not ttl_known:
            faults.add("ttl", f"must be from 1 s to {seconds_text(self._ttl_max)} (the server's maximum)")
        faults.owner("owner", order.kind, order.owner)
        life_max = (order.ttl or self._ttl_default) if ttl_known else self._ttl_max
        faults.idle_timeout("idle_timeout", order.kind, order.idle_timeout, life_max)
        networks = faults.networks("allowed_networks", order.allowed_networks)
        faults.certificate("certificate_sha256", order.certificate_sha256)
        if not faults.found:
            faults.carried(order.scopes, order.audiences, order.metadata, networks, order.certificate_sha256)
            faults.grants_together("grants", order.grants)
        if not faults.found:
            await self._check_catalogued(order.scopes, faults)
        if faults.found:
            raise FieldsInvalidError(faults.found)
        return replace(order, allowed_networks=networks)

    async def _check_catalogued(self, scopes: Sequence[str], faults: Faults) -> None:
        unknown = unknown_scopes(scopes, self._catalogue)
        if unknown:
            self._catalogue = await self._store.scope_names()
            unknown = unknown_scopes(scopes, self._catalogue)
        for scope, description in unknown:
            faults.add(f"scopes[{scopes.index(scope)}]", description)

    async def _store_new(
        self, order: IssueOrder, now: datetime, actor: Actor, *, issuer: TokenRecord | None
    ) -> IssuedToken:
        ends_at = now + (self._ttl_default if order.ttl is None else order.ttl)
        tied_to = None
        if order.tied and issuer is not None:
            tied_to = issuer.lineage
            ends_at = min(ends_at, issuer.expires_at)
        minted = self._mint.token(ends_at)
        record = TokenRecord(
            token_id=minted.token.token_id,
            pepper_version=minted.pepper_version,
            digest=minted.digest,
            subject=order.subject,
            audiences=order.audiences,
            scopes=order.scopes,
            grants=order.grants,
            created_at=now,
            expires_at=minted.expires_at,
            issued_by=None if issuer is None else issuer.token_id,
            name=order.name,
            metadata=order.metadata,
            kind=order.kind,
            owner=order.owner,
            idle_timeout=order.idle_timeout,
            idle_expires_at=self._mint.idle_expires_at(order.idle_timeout, now),
            allowed_networks=order.allowed_networks,
            certificate_sha256=order.certificate_sha256,
            tied_to=tied_to,
            digest_scheme=minted.digest_scheme,
        )
        outcome = await self._store.issue(NewToken(record, actor, order.request_id))
        match outcome:
            case Issued(created_at, expires_at):
                return IssuedToken(minted.token, record._replace(created_at=created_at, expires_at=expires_at))
            case RequestIdUsed(used_for):
                raise RequestIdUsedError(used_for)
            case SubjectBlocked(subject):
                raise SubjectBlockedError(subject)
            case IssuerGone():
                raise CallerUnknownError("TOKEN_INACTIVE", "the calling token is no longer active")
