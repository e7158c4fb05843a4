"""What the commands on the server's own machine share: its packages, its settings, its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from watchword_server.cli.errors import CommandError, ExitCode, missing_extra

if TYPE_CHECKING:
    from watchword_server.settings import Settings

_SEE: Final = "docs/operate.md describes every setting."


@contextmanager
def server_side(command: str) -> Iterator[None]:
    """Around everything that imports or runs the server: its errors become messages with a remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        # An absent package is the user's to install; an absent module of ours is a defect.
        if error.name is None or error.name.startswith("watchword"):
            raise
        raise missing_extra("server", command, error.name) from None
    except CommandError:
        raise
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        raise known from None


def _known(error: Exception) -> CommandError | None:
    """The error families of the server, whose texts are made for people and hold no secret."""
    from watchword_server.embedded import EmbeddedPostgresError
    from watchword_server.keyring import KeyringError
    from watchword_server.observe.exposition import ExpositionError
    from watchword_server.observe.traces import TracesError
    from watchword_server.private_file import PrivateFileError
    from watchword_server.settings import SettingsError
    from watchword_server.store.contract import StoreError
    from watchword_server.store.migrate import MigrationError
    from watchword_server.store.peppers import PepperMismatchError
    from watchword_server.transport.server import ListenError
    from watchword_server.transport.tls import TlsError
    from watchword_server.workers import WorkersError

    match error:
        case SettingsError():
            return CommandError(str(error), _SEE, ExitCode.CONFIGURATION, "SETTINGS_INVALID")
        case KeyringError() | PepperMismatchError():
            return CommandError(
                f"the keyring cannot be used: {error}",
                "Restore the keyring that belongs to this database; without it no token in it can be checked.",
                ExitCode.CONFIGURATION,
                "KEYRING_INVALID",
            )
        case PrivateFileError():
            return CommandError(
                str(error), "Run this as the user that owns the folder.", ExitCode.CONFIGURATION, "FILE_UNWRITABLE"
            )
        case EmbeddedPostgresError():
            return CommandError(
                str(error),
                "Or set WATCHWORD_DATABASE_URL to a server of your own.",
                ExitCode.UNAVAILABLE,
                "EMBEDDED_DATABASE",
            )
        case MigrationError():
            return CommandError(
                f"the database's schema: {error}",
                "Check WATCHWORD_DATABASE_URL and that the database runs; then `watchword db status`.",
                ExitCode.UNAVAILABLE,
                "MIGRATION",
            )
        case ListenError() | ExpositionError() | TlsError() | TracesError():
            return CommandError(
                str(error), f"Mend that and start again. {_SEE}", ExitCode.CONFIGURATION, "CANNOT_SERVE"
            )
        case WorkersError():
            return CommandError(str(error), "Mend that and start again.", ExitCode.INTERNAL, "WORKERS_ENDED")
        case StoreError():
            return CommandError(
                str(error),
                "`watchword doctor` says what is wrong and how to mend it.",
                ExitCode.UNAVAILABLE,
                "DATABASE",
            )
        case _:
            return None


def read_settings(**overrides: object) -> Settings:
    """The server's settings from this process's environment; `overrides` win. Use it within `server_side`."""
    from watchword_server.settings import load_settings

    return load_settings(None, **overrides)


@contextmanager
def running_database(settings: Settings, *, migrating: bool = False) -> Iterator[str]:
    """The DSN of the database; the embedded one runs for as long as the block, and longer if a server uses it.

    With `migrating`, as the role that may change the schema.
    """
    url = settings.migration_database_url if migrating else None
    url = url or settings.database_url
    if url is not None:
        yield url.get_secret_value()
        return
    from watchword_server.embedded import EmbeddedPostgres

    with EmbeddedPostgres(settings.data_dir) as embedded:
        yield embedded.dsn
