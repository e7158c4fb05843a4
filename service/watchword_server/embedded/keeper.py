"""Stops the embedded PostgreSQL when nobody is left who would: killing the last server must not leave it for ever.

A process of its own for each running PostgreSQL, because only another process outlives a kill. It sleeps in the kernel
on the users' lock and ends with PostgreSQL.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

SPAWN_SECONDS_MAX: Final = 30
# It forks before it imports anything, so that whoever started it need neither wait for it nor collect it later.
_SCRIPT: Final = """
import os, sys
if os.fork():
    os._exit(0)
from contextlib import suppress
from pathlib import Path
from watchword_server.embedded import EmbeddedPostgres
with suppress(FileNotFoundError):
    EmbeddedPostgres(Path(sys.argv[1])).keep()
"""


def spawn_keeper(data_dir: Path) -> None:
    """Starts the keeper of the PostgreSQL in `data_dir`, detached from this process and its terminal."""
    subprocess.run(  # noqa: S603 (this interpreter, a script of ours)
        [sys.executable, "-I", "-c", _SCRIPT, str(data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        check=True,
        timeout=SPAWN_SECONDS_MAX,
    )
