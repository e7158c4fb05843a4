"""How a token that renews itself is doing: for health pages, and whoever is woken at three in the morning."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RenewalStatus:
    """One look at a token that renews itself. Holds nothing secret, so it is safe to log."""

    token_id: str
    """The public half of the token in use; empty as long as none could be read."""
    ends_at: datetime | None
    renews_at: datetime | None
    """When the next attempt is due; None if there is none, or only now and then, to see whether a refusal stands."""
    is_renewing: bool
    """Whether it goes on by itself. If not, `reason` says why."""
    is_unsaved: bool
    """Whether a new token is in memory only, because it could not be kept. Saving it is tried again."""
    last_error: str | None
    """Why the last attempt failed, or why there is none: `UNAVAILABLE`, `TOKEN_ROTATED`. None after a success."""
    reason: str | None
    """The same in a sentence."""
    renewals_count: int
    renewed_at: datetime | None
