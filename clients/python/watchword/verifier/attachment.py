"""Whether a verifier's watch stands, why not, when to try again, and what the log says of it."""

from __future__ import annotations

import logging
import random
import re
from typing import Final

import grpc

from watchword.status import DOMAIN, error_info
from watchword.verifier.wire import unavailable

_LOGGER: Final = logging.getLogger("watchword.verifier")

HANDSHAKE_SECONDS_MAX: Final = 5.0
"""From hello to welcome."""
RELEASE_SECONDS_MAX: Final = 1.0
"""From a release to the end of its stream."""
_SILENCE_RENEWALS: Final = 2.5
_SILENCE_SECONDS_MIN: Final = 1.0
_RETRY_SECONDS_MIN: Final = 0.1
_RETRY_SECONDS_MAX: Final = 5.0
# An authority without Watch does not get it by being asked.
_RETRY_UNIMPLEMENTED_SECONDS: Final = 60.0
# A reason comes from the network and goes into logs.
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")

SILENT: Final = "SILENT"
MOVED: Final = "MOVED"
ENDED: Final = "ENDED"
WATCH_PROTOCOL: Final = "WATCH_PROTOCOL"
CLOSED: Final = "CLOSED"

_SENTENCES: Final = {
    "UNIMPLEMENTED": "the authority has no VerifierService.Watch: it is older than this library",
    "PERMISSION_DENIED": "this service's own token may not watch: it needs the scope watchword.validate",
    "SCOPE_MISSING": "this service's own token may not watch: it needs the scope watchword.validate",
    "UNAUTHENTICATED": "the authority refuses this service's own token",
    "TOKEN_INACTIVE": "the authority refuses this service's own token: it has ended, or lacks the audience watchword",
    CLOSED: "the verifier is closed",
    SILENT: "the authority has stopped answering on the watch",
    MOVED: "the authority's replica goes away",
    ENDED: "the authority ended the watch",
    WATCH_PROTOCOL: "the authority's watch does not follow the protocol",
}


def cause_of(error: grpc.RpcError) -> str:
    """Why a watch failed: the authority's reason if it gave one, else the status' name."""
    info = error_info(error)
    if info is not None and info.domain == DOMAIN and _REASON.fullmatch(info.reason):
        return info.reason
    return unavailable(error).cause


def silence_seconds_max(renew_every_seconds: float) -> float:
    """How long a watch may stay silent: each renewal is answered, so two missing answers mean that nobody is there."""
    return max(_SILENCE_SECONDS_MIN, _SILENCE_RENEWALS * renew_every_seconds)


class Attachment:
    """The state of a verifier's watch over all its streams. Says each change once in the log."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._failures = 0
        self.is_attached = False
        self.last_error: str | None = None
        self.is_unclocked = False
        """This platform has no CLOCK_BOOTTIME: there will never be a watch."""

    def unclocked(self) -> None:
        """Nothing can be cached on this platform."""
        self.is_unclocked = True
        _LOGGER.warning("%s: caching is off, every check asks the authority: %s", self._name, self.reason)

    def attached(self, lease_seconds: float) -> None:
        """A lease was granted on a stream."""
        if self.is_attached:
            return
        self.is_attached = True
        self._failures = 0
        level = logging.INFO if self.last_error is None else logging.WARNING
        _LOGGER.log(level, "%s: checks are cached, under a lease of %.3g s", self._name, lease_seconds)

    def lost(self, cause: str, lease_remaining_seconds: float) -> None:
        """The stream ended, or could not be opened."""
        said = not self.is_attached and cause == self.last_error
        was_attached, self.is_attached, self.last_error = self.is_attached, False, cause
        if said:
            return
        if was_attached and lease_remaining_seconds > 0:
            _LOGGER.warning(
                "%s: the watch is lost: %s; what is cached serves for at most %.3g s, unless it is opened again",
                self._name,
                self.reason,
                lease_remaining_seconds,
            )
        else:
            _LOGGER.warning("%s: caching is off, every check asks the authority: %s", self._name, self.reason)

    def closed(self) -> None:
        """The verifier was closed."""
        self.is_attached, self.last_error = False, CLOSED

    @property
    def reason(self) -> str:
        """Why there is no watch, in a sentence."""
        if self.is_unclocked:
            return "this platform has no CLOCK_BOOTTIME, without which no lease can be judged"
        if self.last_error is None:
            return "no lease was granted yet"
        return _SENTENCES.get(self.last_error, f"the watch failed with {self.last_error}")

    def retry_seconds(self) -> float:
        """How long to wait before the next attempt. Doubles with each failure, and differs from verifier to verifier:
        a replica that went away must not be followed by everybody in the same moment.
        """
        if self.last_error == "UNIMPLEMENTED":
            return _RETRY_UNIMPLEMENTED_SECONDS
        seconds: float = min(_RETRY_SECONDS_MAX, _RETRY_SECONDS_MIN * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311  # nobody gains by guessing it
