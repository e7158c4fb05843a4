"""The question before many tokens end."""

from __future__ import annotations

import sys

import typer

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Output


def refuse_without_terminal() -> None:
    """Raises CommandError where nobody could answer."""
    if not sys.stdin.isatty():
        raise CommandError(
            "this may revoke many tokens, and there is no terminal to ask on",
            "If that is meant, add --yes. `watchword revoke --dry-run` shows which, and ends none.",
            ExitCode.USAGE,
            "CONFIRMATION_NEEDED",
        )


def confirm(output: Output, what: str) -> None:
    """Says what is about to end and asks. Ends the command with ExitCode.NO unless the answer is yes."""
    output.note(f"This revokes {what}. It cannot be undone.")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.note("Nothing was revoked.")
        raise typer.Exit(ExitCode.NO)
