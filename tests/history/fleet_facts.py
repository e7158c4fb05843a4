"""What all processes of a run agree on."""

from __future__ import annotations

from typing import Final

AUDIENCE: Final = "history-verifier"
SCOPE: Final = "history.use"
"""What the guarded methods need."""
USAGE_INTERVAL_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 1
IDLE_SECONDS_MAX: Final = 15.0
"""After which a session that nobody used is over: its idle timeout, what the service adds for reports on their way, and
how long a report may lie in a process that was stopped or on a wire that was cut."""
