"""Why a request is refused. One family with stable codes; request/status.py turns them into gRPC statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from watchword.token import format_token_id


class RefusalError(Exception):
    """A request that is not carried out. `reason` is stable and for programs; the text is for the caller to read and
    holds no secret."""

    reason = "REFUSED"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})


class FieldsInvalidError(RefusalError):
    """The request is wrong in itself. Holds every fault: pairs of field path and description."""

    reason = "FIELD_INVALID"

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        first_path, first_description = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{first_path}: {first_description}{more}")
        self.faults = faults


class CallerUnknownError(RefusalError):
    """The caller's own token is missing, malformed or not active. `reason` is TOKEN_MALFORMED or TOKEN_INACTIVE."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ScopeMissingError(RefusalError):
    """The caller's token lacks a scope."""

    reason = "SCOPE_MISSING"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the calling token lacks the scope '{scope}'", {"scope": scope})


class GrantMissingError(RefusalError):
    """No single grant of the caller covers the request."""

    reason = "GRANT_MISSING"


class RequestIdUsedError(RefusalError):
    """A retry of an Issue that was carried out."""

    reason = "REQUEST_ID_USED"

    def __init__(self, token_id: UUID) -> None:
        shown = format_token_id(token_id)
        super().__init__(
            f"this request_id was already used for token {shown}, whose secret cannot be shown again: "
            "revoke that token and issue anew with another request_id",
            {"token_id": shown},
        )


class SubjectBlockedError(RefusalError):
    """Nothing may be issued for a subject or owner."""

    reason = "SUBJECT_BLOCKED"

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"'{subject}' is blocked: nothing is issued for it until it is unblocked", {"subject": subject}
        )


class TokenRotatedError(RefusalError):
    """The token to be rotated has a successor, made by another request."""

    reason = "TOKEN_ROTATED"

    def __init__(self, successor_id: UUID) -> None:
        shown = format_token_id(successor_id)
        super().__init__(f"this token was rotated before: its successor is {shown}", {"token_id": shown})


class TokenNotLiveError(RefusalError):
    """What is to be rotated or narrowed has ended."""

    reason = "TOKEN_NOT_LIVE"

    def __init__(self) -> None:
        super().__init__("the token is revoked or has expired, or what it is tied to has ended: issue a new one")


class ScopeOwnedError(RefusalError):
    """A scope's name belongs to another subject."""

    reason = "SCOPE_OWNED"

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(f"the scope '{name}' belongs to '{owner}'", {"scope": name, "owner": owner})


class TokenNotFoundError(RefusalError):
    """There is no such token."""

    reason = "TOKEN_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("there is no such token")


class PepperUnknownError(RefusalError):
    """A row was stored with a pepper version that this process does not have: not to be judged, so unavailable."""

    reason = "PEPPER_UNKNOWN"

    def __init__(self, version: int) -> None:
        super().__init__("this token cannot be verified by this server now", {"pepper_version": str(version)})


class DeadlineTooNearError(RefusalError):
    """So little of the caller's deadline is left that a write is better not begun."""

    reason = "DEADLINE_TOO_NEAR"

    def __init__(self) -> None:
        super().__init__("the deadline is too near to begin; nothing was done")


class RateLimitedError(RefusalError):
    """The caller does this too often."""

    reason = "RATE_LIMITED"

    def __init__(self, retry_seconds: float) -> None:
        super().__init__("the calling subject is at its limit for this; nothing was done")
        self.retry_seconds = retry_seconds
        """Until the next one may pass."""
