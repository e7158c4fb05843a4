"""The data folder: where it lies unless told otherwise, and the names of what lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

POSTGRES_FOLDER: Final = "postgres"
"""The embedded database."""
POSTGRES_SOCKET: Final = f"{POSTGRES_FOLDER}/.s.PGSQL.5432"
POSTGRES_VERSION_FILE: Final = f"{POSTGRES_FOLDER}/PG_VERSION"
"""Made by PostgreSQL: where it is, there is a database."""
KEYRING_FILE: Final = "keyring.json"
ADMIN_TOKEN_FILE: Final = "admin-token"  # noqa: S105  # a file's name
"""The administrator's token that the first start leaves for the command line on the same machine."""


def default_data_folder() -> Path:
    """The user's own, as the platform has it."""
    return platformdirs.user_data_path("watchword")
