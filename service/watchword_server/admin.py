"""Administrators made on the server's own machine: the first one, and the one after the last one is gone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from watchword_server.answer.issue import IssueOrder, Issuing
from watchword_server.data_folder import ADMIN_TOKEN_FILE
from watchword_server.parts import Parts, opened
from watchword_server.private_file import replace_private_file
from watchword_server.rules.tokens import ADMINISTRATOR_SCOPE, WATCHWORD, Grant, TokenRecord
from watchword_server.settings import Settings
from watchword_server.store.administrators import last_administrator_ends_at
from watchword_server.store.contract import Actor
from watchword_server.store.database import Database, lock_key

# It exists to issue named administrators, not to be kept.
BOOTSTRAP_TTL: Final = timedelta(hours=24)
_EVERYTHING: Final = Grant(scopes=("*", ADMINISTRATOR_SCOPE), subjects=("*",), audiences=("*", WATCHWORD))
_ACTOR: Final = Actor("bootstrap", None, "local")
# Two that start at once take turns, so that one administrator is made and not two.
_LOCK_KEY: Final = lock_key("bootstrap")

_log = logging.getLogger("watchword")


class AdministratorExistsError(Exception):
    """There is a live administrator, who can issue others."""


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """The new administrator's secret, shown this once, and its record."""

    secret: str = field(repr=False)
    token: TokenRecord


async def make_administrator(database: Database, issuing: Issuing, *, ttl: timedelta) -> BootstrapResult:
    """Makes an administrator's token unless a live one exists. Raises AdministratorExistsError, StoreError."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK_KEY)
        ends_at, now = await last_administrator_ends_at(database)
        if ends_at is not None:
            raise AdministratorExistsError(f"a live administrator exists, until {ends_at:%Y-%m-%d %H:%M} UTC")
        order = IssueOrder(
            subject="admin",
            audiences=(WATCHWORD,),
            scopes=(ADMINISTRATOR_SCOPE,),
            grants=(_EVERYTHING,),
            ttl=ttl,
            name="made by bootstrap",
        )
        issued = await issuing.issue_unasked(order, now, _ACTOR)
    return BootstrapResult(issued.token.text.decode("ascii"), issued.record)


async def first_administrator(parts: Parts) -> None:
    """The embedded database's owner is whoever owns its folder: they get an administrator if there is none."""
    path = parts.settings.data_dir / ADMIN_TOKEN_FILE
    ttl = timedelta(seconds=parts.settings.default_ttl_seconds)
    with replace_private_file(path) as write:
        try:
            made = await make_administrator(parts.database, parts.issuing, ttl=ttl)
        except AdministratorExistsError:
            return
        write(made.secret + "\n")
    _log.info("made an administrator, until %s; its token is in %s", f"{made.token.expires_at:%Y-%m-%d}", path)


async def bootstrap(settings: Settings) -> BootstrapResult:
    """`watchword bootstrap`: a short-lived administrator, from the server's own machine. Raises as `opened` does, and
    AdministratorExistsError."""
    async with opened(settings) as parts:
        return await make_administrator(parts.database, parts.issuing, ttl=BOOTSTRAP_TTL)
