"""The command line `watchword`.

Commands that talk to a server need the extra `[cli]` only; those that are the server (serve, db, bootstrap, doctor,
keyring) import it when they run and say what to install where it is missing.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line with this process's arguments and ends the process with an exit code of ExitCode."""
    _prepare_grpc()
    from watchword_server.cli.run import run

    sys.exit(run(sys.argv[1:]))


def worker() -> NoReturn:
    """One of the processes behind `watchword serve --workers`, which alone starts it."""
    _prepare_grpc()
    from watchword_server.cli.run import run_worker

    sys.exit(run_worker())


def _prepare_grpc() -> None:
    # gRPC reads these when it is imported. Nothing here calls gRPC across a fork, and its core's information is noise.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
