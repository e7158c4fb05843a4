"""`watchword keyring drop-version`: takes a key out of a keyring, once no live token needs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.keyring import FileOption, PrintOption, finish, keyring_path, load_keyring
from watchword_server.cli.local import read_settings, running_database, server_side
from watchword_server.data_folder import POSTGRES_VERSION_FILE

if TYPE_CHECKING:
    from watchword_server.keyring import Keyring
    from watchword_server.settings import Settings
    from watchword_server.store.peppers import PepperUse, ServerPeppers

_FORCE: Final = (
    "--force drops it all the same: tokens that need it cannot be checked then, and the servers do not start."
)


def drop_version(
    version: Annotated[int, typer.Argument(help="The version that nothing needs any more.")],
    file: FileOption = None,
    print_instead: PrintOption = False,
    force: Annotated[bool, typer.Option("--force", help="Ask no database, and drop it whatever needs it.")] = False,
) -> None:
    """Take a version out of the keyring, if no live token needs it and no server stores new tokens with it.

    Asks the database of the server's settings. Bring the file to every server and restart them afterwards.
    """
    with server_side("keyring drop-version"):
        path = keyring_path(file)
        keyring = load_keyring(path)
        if version not in keyring.peppers:
            raise CommandError(
                f"{path} has no version {version}",
                f"It has {', '.join(map(str, sorted(keyring.peppers)))}.",
                ExitCode.NOTHING_MATCHED,
                "VERSION_UNKNOWN",
            )
        if version == keyring.current:
            raise CommandError(
                f"version {version} is the current one in {path}",
                "First: watchword keyring make-current, with another version, on every server.",
                ExitCode.CONFLICT,
                "VERSION_CURRENT",
            )
        if not force:
            _require_unneeded(keyring, version)
        left = replace(keyring, peppers={one: key for one, key in keyring.peppers.items() if one != version})
        done = f"Version {version} is gone from {path}. Bring the file to every server and restart them; keep a copy of"
        done += " the old one for as long as you keep backups of the database."
        finish(path, left, print_instead, done)


def _require_unneeded(keyring: Keyring, version: int) -> None:
    settings = read_settings(keyring=keyring.dump())
    if settings.embedded and not (settings.data_dir / POSTGRES_VERSION_FILE).exists():
        raise CommandError(
            f"there is no database here to ask whether live tokens need version {version}",
            f"Set WATCHWORD_DATABASE_URL, or WATCHWORD_DATA_DIR. {_FORCE}",
            ExitCode.CONFIGURATION,
            "DATABASE",
        )
    with running_database(settings) as dsn:
        use, servers = asyncio.run(_use(dsn, settings, keyring, version))
    if use is None or use.live_tokens:
        counted = "live tokens need" if use is None else _counted(use.live_tokens)
        until = "" if use is None else f", the last of them until {use.last_ends_at:%Y-%m-%d %H:%M} UTC"
        raise CommandError(
            f"{counted} version {version}{until}",
            f"Wait until then, or rotate them or revoke them before. {_FORCE}",
            ExitCode.CONFLICT,
            "VERSION_NEEDED",
        )
    using = [server.name for server in servers if server.versions and server.versions[0] == version]
    if using:
        raise CommandError(
            f"the server {using[0]} still stores new tokens with version {version}",
            f"Restart it with this keyring first. {_FORCE}",
            ExitCode.CONFLICT,
            "VERSION_NEEDED",
        )


def _counted(tokens: int) -> str:
    return "1 live token needs" if tokens == 1 else f"{tokens} live tokens need"


async def _use(
    dsn: str, settings: Settings, keyring: Keyring, version: int
) -> tuple[PepperUse | None, list[ServerPeppers]]:
    from watchword_server.store.database import Database
    from watchword_server.store.peppers import (
        PepperMismatchError,
        mismatched,
        pepper_use,
        server_peppers,
        stored_checks,
    )

    database = await Database.open(dsn, pool_size_max=1, connect_timeout_seconds=settings.connect_timeout_seconds)
    try:
        async with database.connection() as connection:
            # What another database says of this number says nothing of this key.
            if mismatched({version: keyring.check_value(version)}, await stored_checks(connection)):
                raise PepperMismatchError(f"version {version} of this database is another key")
            # Whoever stores tokens with it is asked first, so that what it stored until then is counted.
            servers = await server_peppers(connection)
            return await pepper_use(connection, version), servers
    finally:
        await database.close()
