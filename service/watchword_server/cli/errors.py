"""What the command line says when it cannot do what it was asked: what happened, what to do next, and an exit code."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """How a command ends. Scripts may rely on these; docs/command-line.md holds the same table."""

    OK = 0
    """Done; for `validate`: the token is active."""
    NO = 1
    """The answer is no: inactive, scopes lacking or never needed, a failed check, a question answered with no."""
    USAGE = 2
    """The command was not understood, or the server refused a field of the request."""
    UNAVAILABLE = 3
    """The server (or its database) could not be reached, or not in time."""
    NOTHING_MATCHED = 4
    """No token, none that is live, or nothing to revoke, was found."""
    DENIED = 5
    """No credential, one that is not accepted, or one that does not allow this."""
    CONFLICT = 6
    """Something stands in the way: a request id used before, a scope's owner, a successor, the last administrator."""
    PENDING = 7
    """Done for good (revoked, narrowed, blocked), and somewhere the token may be accepted as before for a while."""
    INTERNAL = 70
    """A defect, or a server that answers in ways this version does not know."""
    CONFIGURATION = 78
    """This machine is not set up for the command: settings, files, packages."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """The reader of the output went away."""


class CommandError(Exception):
    """Ends the command. `message` says what happened, `remedy` what to do next; neither ever holds a secret."""

    def __init__(self, message: str, remedy: str, exit_code: ExitCode, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code
        self.reason = reason


class BrokenOutputError(Exception):
    """Whoever read the output has closed it. Ends the command without a word."""


def missing_extra(extra: str, command: str, missing: str | None) -> CommandError:
    """For a command whose packages are not installed."""
    return CommandError(
        f"`watchword {command}` needs packages that are not installed here" + (f" ({missing})" if missing else ""),
        f"Install them: pip install 'watchword[{extra}]'",
        ExitCode.CONFIGURATION,
        "PACKAGES_MISSING",
    )
