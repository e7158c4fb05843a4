"""The keyring against the database and the other servers: whether it fits, who lacks a version, and which can go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from watchword_server.doctor.finding import Finding
from watchword_server.keyring import Keyring
from watchword_server.store.peppers import (
    PepperUse,
    ServerPeppers,
    mismatched,
    needed_versions,
    pepper_use,
    server_peppers,
    stored_checks,
)

_CHECK: Final = "keyring"


async def check_peppers(connection: asyncpg.Connection, keyring: Keyring) -> list[Finding]:
    """Whether this keyring is the one that the stored tokens were hashed with, and how far its rotation has come."""
    stored = await stored_checks(connection)
    wrong = mismatched({version: keyring.check_value(version) for version in keyring.peppers}, stored)
    if wrong:
        return [
            Finding(
                _CHECK,
                "fail",
                f"version {_listed(wrong)} is not the key that this database's tokens were hashed with",
                "Use the keyring that belongs to this database; a new key needs a version number of its own.",
            )
        ]
    missing = await needed_versions(connection, stored.keys() - keyring.peppers.keys())
    if missing:
        return [
            Finding(
                _CHECK,
                "fail",
                f"live tokens need version {_listed(missing)}, which the keyring lacks",
                "Put that version back; without it these tokens cannot be checked.",
            )
        ]
    uses = {version: await pepper_use(connection, version) for version in sorted(keyring.peppers)}
    return [
        Finding(_CHECK, "ok", f"version {keyring.current} is current and matches the database"),
        *(judge_version(version, keyring.current, use, known=version in stored) for version, use in uses.items()),
        *(finding for server in await server_peppers(connection) for finding in judge_server(server, keyring)),
    ]


def judge_version(version: int, current: int, use: PepperUse | None, *, known: bool) -> Finding:
    """How much a version is needed. `use` is None if that took too long to count; `known`: a server started with it."""
    if use is None:
        needed = "live tokens need it, too many to count here"
    elif not use.live_tokens:
        needed = "no live token needs it"
    elif use.live_tokens == 1:
        needed = "1 live token needs it"
    else:
        needed = f"{use.live_tokens} live tokens need it"
    if version == current:
        then = "new ones are stored with it"
    elif use is None:
        then = "it has to stay"
    elif use.last_ends_at is not None:
        then = f"it can go after {use.last_ends_at:%Y-%m-%d %H:%M} UTC"
    elif version < current:
        then = f"it can go now: watchword keyring drop-version {version}"
    elif known:
        then = f"when every server has it: watchword keyring make-current {version}"
    else:
        then = "no server has started with it yet"
    return Finding(f"{_CHECK} version {version}", "ok", f"{needed}; {then}")


def judge_server(server: ServerPeppers, keyring: Keyring) -> list[Finding]:
    """What a running server has that is not as in this keyring; nothing if it does not tell."""
    if server.versions is None or list(server.versions) == keyring.versions:
        return []
    lacking = sorted(keyring.peppers.keys() - set(server.versions))
    more = sorted(set(server.versions) - keyring.peppers.keys())
    current = server.versions[0]
    said: list[str] = []
    if lacking:
        said.append(f"lacks version {_listed(lacking)} and cannot check tokens that were stored with it")
    if more:
        said.append(f"has version {_listed(more)}, which this keyring lacks")
    if current != keyring.current:
        said.append(f"stores new tokens with version {current}, and {keyring.current} is current here")
    remedy = "Bring this keyring to it and restart it"
    if more and current in more:
        remedy = "The keyring here is older: bring the server's here"
    elif lacking and current == keyring.current:
        remedy += f" before `watchword keyring make-current {lacking[-1]}`"
    elif not lacking and current != keyring.current:
        remedy += f" before version {current} is dropped"
    return [Finding(_CHECK, "warn", f"the server {server.name} {'; '.join(said)}", f"{remedy}.")]


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions))
