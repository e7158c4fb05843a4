"""The one table of what a refused call is told: status, sentence, and a reason for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import Message

from watchword.bearer import BearerReason
from watchword.identity import Identity
from watchword.status import details_trailer, reason_detail, retry_detail
from watchword.verifier.verdict import Active, Inactive, Insufficient, Verdict

RETRY_DELAY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal, ready to send: constant ones are encoded once, so that a flood of junk stays cheap."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes]]


def _denial(code: grpc.StatusCode, message: str, *details: Message) -> Denial:
    return Denial(code, message, details_trailer(code, message, *details))


def _unauthenticated(reason: str, message: str) -> Denial:
    return _denial(grpc.StatusCode.UNAUTHENTICATED, message, reason_detail(reason))


MISSING: Final = _unauthenticated("TOKEN_MISSING", "the call carries no bearer token")
MALFORMED: Final = _unauthenticated("TOKEN_MALFORMED", "the bearer token is malformed")
AMBIGUOUS: Final = _unauthenticated("TOKEN_AMBIGUOUS", "the call carries more than one authorization entry")
INACTIVE: Final = _unauthenticated("TOKEN_INACTIVE", "the token is not active")
UNAVAILABLE: Final = _denial(
    grpc.StatusCode.UNAVAILABLE,
    "the token cannot be verified now",
    reason_detail("VERIFIER_UNAVAILABLE"),
    retry_detail(RETRY_DELAY_SECONDS),
)
# For callers with an active token only: others do not learn which methods exist.
RULE_MISSING: Final = _denial(
    grpc.StatusCode.PERMISSION_DENIED, "the service's policy has no rule for this method", reason_detail("RULE_MISSING")
)
UNIMPLEMENTED: Final = _denial(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
REQUEST_UNREADABLE: Final = _denial(grpc.StatusCode.INTERNAL, "the request message cannot be read")

BY_BEARER_REASON: Final[dict[BearerReason, Denial]] = {
    "TOKEN_MISSING": MISSING,
    "TOKEN_MALFORMED": MALFORMED,
    "TOKEN_AMBIGUOUS": AMBIGUOUS,
}


def judge(verdict: Verdict) -> Identity | Denial:
    """The identity that a verdict admits, or what to answer. Anything that is no verdict admits nobody."""
    if isinstance(verdict, Active):
        return verdict.identity
    if isinstance(verdict, Insufficient):
        return scope_missing(verdict.missing_scopes)
    if isinstance(verdict, Inactive):
        return MALFORMED if verdict.malformed else INACTIVE
    return UNAVAILABLE


def denial_of(verdict: Verdict) -> Denial:
    """What to answer once a verdict ended a stream. An active one cannot; it would be a doubt, and doubts refuse."""
    outcome = judge(verdict)
    return outcome if isinstance(outcome, Denial) else UNAVAILABLE


def scope_missing(scopes: tuple[str, ...]) -> Denial:
    """What a caller lacks, as a list with spaces between (RFC 6750 section 3.1, `insufficient_scope`)."""
    lacking = " ".join(scopes)
    return _denial(
        grpc.StatusCode.PERMISSION_DENIED,
        "the token lacks the scope " + lacking,
        reason_detail("SCOPE_MISSING", scope=lacking),
    )
