"""Tells the operator that the authority cannot be asked: once when it begins, once when it is over."""

from __future__ import annotations

import logging
from typing import Final

_LOGGER: Final = logging.getLogger("watchword.verifier")


class Outage:
    """Remembers why the last call failed, so that ten thousand refused checks are one line in the log.

    Two threads may report the same change at once; the price is a line too many.
    """

    __slots__ = ("_cause", "_is_told_of_unjudged")

    def __init__(self) -> None:
        self._cause: str | None = None
        self._is_told_of_unjudged = False

    def seen(self, cause: str) -> None:
        """A call failed with `cause` (see VerifierUnavailableError)."""
        if cause not in (self._cause, "CLOSED"):
            self._cause = cause
            _LOGGER.warning("tokens cannot be verified: the authority's answer was %s", cause)

    def unjudged(self) -> None:
        """A call succeeded, but not for this token. Told once and for all: the next token may be one that is judged."""
        if not self._is_told_of_unjudged:
            self._is_told_of_unjudged = True
            _LOGGER.warning("the authority cannot verify some tokens, since a server of it lacks a key: PEPPER_UNKNOWN")

    def ended(self) -> None:
        """A call succeeded."""
        if self._cause is not None:
            self._cause = None
            _LOGGER.warning("tokens can be verified again")
