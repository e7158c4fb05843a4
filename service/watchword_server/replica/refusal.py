"""Why a Watch stream ends."""

from __future__ import annotations


class WatchRefusedError(Exception):
    """Ends one stream: `status` names the gRPC status, `reason` the stable code; the text is for the verifier."""

    def __init__(self, status: str, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


def protocol(sentence: str) -> WatchRefusedError:
    """A message that no verifier sends."""
    return WatchRefusedError("INVALID_ARGUMENT", "WATCH_PROTOCOL", sentence)


def flooding() -> WatchRefusedError:
    """More messages than a verifier has reason to send."""
    return WatchRefusedError("RESOURCE_EXHAUSTED", "WATCH_FLOODING", "too many messages on this stream")


def limited() -> WatchRefusedError:
    """The replica keeps as many leases as it may."""
    return WatchRefusedError("RESOURCE_EXHAUSTED", "WATCHES_LIMITED", "too many verifiers at this replica")


def lagging() -> WatchRefusedError:
    """Changes are not acknowledged in time, or grants are not read."""
    return WatchRefusedError("ABORTED", "WATCH_LAGGING", "changes were not acknowledged in time")


def replaced() -> WatchRefusedError:
    """The same verifier attached again."""
    return WatchRefusedError("ABORTED", "WATCH_REPLACED", "the same verifier opened another stream")


def lease_missing() -> WatchRefusedError:
    """The replica is no member now, so it may not grant."""
    return WatchRefusedError("UNAVAILABLE", "LEASE_MISSING", "this replica may not grant leases now")


def draining() -> WatchRefusedError:
    """The replica goes away."""
    return WatchRefusedError("UNAVAILABLE", "DRAINING", "this replica is going away")
