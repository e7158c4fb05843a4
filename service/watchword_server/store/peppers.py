"""Whether this process's keyring is the one that the database's tokens were stored with, and which of its versions are
still needed."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from watchword_server.store.contract import StoreError
from watchword_server.store.database import Connection, Database, query

COUNT_SECONDS_MAX: Final = 5.0
"""For counting the tokens of one version: seconds for tens of millions, nothing for a version that nobody needs."""


class PepperMismatchError(StoreError):
    """The keyring does not fit the database. Its text names versions, never keys."""


@dataclass(frozen=True, slots=True)
class PepperUse:
    """How many live tokens were stored with a version, and when the last of them ends."""

    live_tokens: int
    last_ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class ServerPeppers:
    """The versions that a running server has, the one that it stores new tokens with first; None: it does not tell."""

    name: str
    versions: Sequence[int] | None


async def check_peppers(database: Database, versions: Mapping[int, bytes]) -> None:
    """Compares each version's check value with the one stored at its first use, and stores those of new versions.

    `versions` maps each pepper version to the HMAC of a constant under it. Raises PepperMismatchError when a version's
    key differs from the one that the tokens were stored with, or when live tokens need a version that is missing.
    """
    # One transaction: a start that is refused leaves nothing behind, or the wrong key's value would from then on refuse
    # the right one (test_refused_keyring_leaves_nothing_behind).
    async with database.connection() as connection, connection.transaction():
        await connection.executemany(query("pepper_add"), sorted(versions.items()))
        stored = await stored_checks(connection)
        wrong = mismatched(versions, stored)
        if wrong:
            raise PepperMismatchError(
                f"pepper version {wrong[0]} in the keyring is not the key that this database's tokens were stored with."
                " Start with the keyring that belongs to this database; a new key needs a version number of its own"
            )
        needed = await needed_versions(connection, stored.keys() - versions.keys())
        if needed:
            raise PepperMismatchError(
                f"live tokens were stored with pepper version {needed[0]}, which the keyring lacks. Add that version's "
                "key back to the keyring: without it these tokens cannot be checked"
            )


async def stored_checks(connection: Connection) -> dict[int, bytes]:
    """The check value of each version that a server ever started with."""
    return {row["version"]: row["check_value"] for row in await connection.fetch(query("pepper_checks"))}


def mismatched(versions: Mapping[int, bytes], stored: Mapping[int, bytes]) -> list[int]:
    """Versions whose key is not the one that the database knows under that number."""
    return [
        version
        for version, value in sorted(versions.items())
        if version in stored and not hmac.compare_digest(stored[version], value)
    ]


async def needed_versions(connection: Connection, versions: Iterable[int]) -> list[int]:
    """Those that live tokens were stored with."""
    return [version for version in sorted(versions) if await connection.fetchval(query("pepper_needed"), version)]


async def pepper_use(connection: Connection, version: int) -> PepperUse | None:
    """How much a version is needed; None if that takes too long to count, which it does for very many tokens."""
    try:
        row = await connection.fetchrow(query("pepper_use"), version, timeout=COUNT_SECONDS_MAX)
    except TimeoutError:
        return None
    return PepperUse(row["live_tokens"], row["last_ends_at"])


async def server_peppers(connection: Connection) -> list[ServerPeppers]:
    """What the running servers have."""
    rows = await connection.fetch(query("fleet_peppers"))
    return [ServerPeppers(row["name"], row["pepper_versions"]) for row in rows]
