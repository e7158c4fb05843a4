"""`watchword serve`: the server itself, in this process."""

from __future__ import annotations

from watchword_server.cli.local import read_settings, server_side


def serve() -> None:
    """Run the server until SIGTERM or Ctrl-C. Settings come from WATCHWORD_ variables; none are needed to begin."""
    with server_side("serve"):
        from watchword_server.app import run

        run(read_settings())
