"""`watchword serve`: the server itself, in this process or in several that it looks after."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchword_server.cli.local import read_settings, server_side
from watchword_server.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from watchword_server.settings import Settings
    from watchword_server.transport.listener import ListenAddress


def serve(
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes to serve the one port with. Default: WATCHWORD_WORKERS, or 1."),
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C; twice ends it at once. Needs no settings to begin.

    Settings are WATCHWORD_ variables: docs/operate.md has them all. A process answers on one core: give a machine that
    has more to do --workers. Each is a replica, with its metrics on a port of its own (WATCHWORD_METRICS_LISTEN and
    those after it).
    """
    with server_side("serve"):
        settings = read_settings() if workers is None else read_settings(workers=workers)
        if settings.workers > 1:
            from watchword_server.workers import run_workers

            run_workers(settings, ready=lambda address: _tell_first_call(settings, address))
        else:
            from watchword_server.app import run

            run(settings, ready=lambda bound: _tell_first_call(settings, bound.address))


def _tell_first_call(settings: Settings, listening: ListenAddress) -> None:
    """What to type next, for whoever tries it out: on the embedded database. A deployment's log stays a log."""
    if not settings.embedded:
        return
    command = _command()
    address = listening.target
    elsewhere = f" --address {address}" if address != "127.0.0.1:7600" else ""
    Output(OutputFormat.TABLE).note(
        f"\nWatchword serves on {address}. Make the first calls from another terminal:\n\n"
        f"  {command} scopes list{elsewhere}\n"
        f"  {command} issue --subject me --audience watchword --scope watchword.read{elsewhere}\n\n"
        f"Ctrl-C stops it; what it stored stays in {settings.data_dir}.\n"
    )


def _command() -> str:
    """The command as it can be typed here: its path, where its folder is not on the search path."""
    script = Path(sys.argv[0])
    on_path = any(Path(folder) == script.parent for folder in os.environ.get("PATH", "").split(os.pathsep))
    if on_path or script.name != "watchword":
        return "watchword"
    try:
        return shlex.quote(str(script.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(script))
