"""Whether this process's keyring is the one that the database's tokens were stored with."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from watchword_server.store.contract import StoreError
from watchword_server.store.database import Database, query


class PepperMismatchError(StoreError):
    """The keyring does not fit the database. Its text names versions, never keys."""


async def check_peppers(database: Database, versions: Mapping[int, bytes]) -> None:
    """Compares each version's check value with the one stored at its first use, and stores those of new versions.

    `versions` maps each pepper version to the HMAC of a constant under it. Raises PepperMismatchError when a version's
    key differs from the one that the tokens were stored with, or when live tokens need a version that is missing.
    """
    # One transaction: a start that is refused leaves nothing behind, or the wrong key's value would from then on refuse
    # the right one (test_refused_keyring_leaves_nothing_behind).
    async with database.connection() as connection, connection.transaction():
        await connection.executemany(query("pepper_add"), sorted(versions.items()))
        stored = {row["version"]: row["check_value"] for row in await connection.fetch(query("pepper_checks"))}
        absent = sorted(set(stored) - set(versions))
        needed = [row["version"] for row in await connection.fetch(query("pepper_versions_in_use"), absent)]
        _check(versions, stored, needed)


def _check(versions: Mapping[int, bytes], stored: Mapping[int, bytes], needed: Sequence[int]) -> None:
    wrong = [version for version, value in versions.items() if not hmac.compare_digest(stored[version], value)]
    if wrong:
        raise PepperMismatchError(
            f"pepper version {wrong[0]} in the keyring is not the key that this database's tokens were stored with. "
            "Start with the keyring that belongs to this database; a new key needs a version number of its own"
        )
    if needed:
        raise PepperMismatchError(
            f"live tokens were stored with pepper version {needed[0]}, which the keyring lacks. Add that version's key "
            "back to the keyring: without it these tokens cannot be checked"
        )
