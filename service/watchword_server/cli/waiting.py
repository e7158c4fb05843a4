"""The live line beside a call that waits for the whole fleet: how long it has taken, and for whom it waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from watchword_server.cli.connect import PendingCall, Session
from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import CommandError
from watchword_server.cli.output import printable
from watchword_server.cli.watchers import behind, list_watchers

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import Position

R = TypeVar("R")

_ASK_AFTER_SECONDS: Final = 1.0
_ASK_EVERY_SECONDS: Final = 1.0
_TICK_SECONDS: Final = 0.1
_NAMES_MAX: Final = 3
_WATCHERS_MAX: Final = 1_000


def wait_with_line(session: Session, call: PendingCall[R], doing: str) -> R:
    """The call's result. On a terminal, a line on standard error says how it goes: `doing`, `Revoking` for instance.
    Raises CommandError."""
    if session.output.is_json or not sys.stderr.isatty():
        return call.result()
    from rich.console import Console
    from rich.text import Text

    began = time.monotonic()
    ask_at: float | None = began + _ASK_AFTER_SECONDS
    whom = ""
    with Console(stderr=True, highlight=False, emoji=False).status(doing) as line:
        while not call.ended_within(_TICK_SECONDS):
            now = time.monotonic()
            if ask_at is not None and now >= ask_at:
                try:
                    whom = in_words(waited_for(session))
                    ask_at = now + _ASK_EVERY_SECONDS
                except CommandError:
                    # Who may revoke need not be allowed to see the fleet, and a server in trouble has more to do.
                    ask_at = None
            line.update(Text(f"{doing}: {seconds_text(now - began)}{f'; waits for {whom}' if whom else ''}"))
    return call.result()


def waited_for(session: Session, position: Position | None = None) -> list[str]:
    """Whom a revocation at `position` (the newest, if absent) waits for. Raises CommandError."""
    listed = list_watchers(session, _WATCHERS_MAX)
    return behind(listed, listed.position if position is None else position)


def in_words(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _NAMES_MAX
    return printable("; ".join(names[:_NAMES_MAX]) + (f"; and {more} more" if more > 0 else ""))


def seconds_text(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `1m15s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return format_duration(timedelta(seconds=seconds))
