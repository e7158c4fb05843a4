"""`watchword serve`: the server itself, in this process."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from watchword_server.cli.local import read_settings, server_side
from watchword_server.cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from watchword_server.settings import Settings
    from watchword_server.transport.server import BoundServer


def serve() -> None:
    """Run the server until SIGTERM or Ctrl-C. Settings come from WATCHWORD_ variables; none are needed to begin."""
    with server_side("serve"):
        from watchword_server.app import run

        settings = read_settings()
        run(settings, ready=lambda bound: _tell_first_call(settings, bound))


def _tell_first_call(settings: Settings, bound: BoundServer) -> None:
    """What to type next, for whoever tries it out: on the embedded database. A deployment's log stays a log."""
    if not settings.embedded:
        return
    command = _command()
    address = bound.address.target
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
