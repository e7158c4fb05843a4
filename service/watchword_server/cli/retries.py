"""Asking again when no answer came, for calls that may safely be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Output

R = TypeVar("R")

_DELAYS_SECONDS: Final = (0.5, 2.0)


def is_worth_another(error: CommandError) -> bool:
    """Whether the same call may find an answer in a moment."""
    return error.exit_code is ExitCode.UNAVAILABLE and error.reason != "RATE_LIMITED"


def insisting(output: Output, attempt: Callable[[], R]) -> R:
    """What `attempt` gives, in up to three tries. Raises the last one's CommandError."""
    for delay_seconds in _DELAYS_SECONDS:
        try:
            return attempt()
        except CommandError as error:
            if not is_worth_another(error):
                raise
            output.note(f"{error.message}. Asking again.")
        time.sleep(delay_seconds)
    return attempt()
