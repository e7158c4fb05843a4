"""Why a token could not be renewed: names for programs, sentences for people, and whether another attempt may help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import grpc

from watchword.status import DOMAIN, error_info, retry_delay_seconds
from watchword.token import MalformedTokenError, parse_token_id

TOKEN_ROTATED: Final = "TOKEN_ROTATED"  # noqa: S105  # a reason, not a token
TOKEN_MALFORMED: Final = "TOKEN_MALFORMED"  # noqa: S105
ANSWER_INVALID: Final = "ANSWER_INVALID"
SESSION: Final = "SESSION"
HARD_END: Final = "HARD_END"

# A refusal is one that lasts until somebody changes something. All else is an outage: also what no Watchword says.
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
# A reason comes from the network and goes into logs.
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_SENTENCES: Final = {
    "TOKEN_INACTIVE": "the service refuses it: it has ended, or does not name the audience watchword",
    "UNAUTHENTICATED": "the service refuses it",
    "TOKEN_NOT_LIVE": "it has ended",
    "TOKEN_NOT_FOUND": "the service does not know it",
    "SUBJECT_BLOCKED": "its subject or owner is blocked",
    "GRANT_MISSING": "the channel bears another token, which may not renew it",
    "SCOPE_MISSING": "the channel bears another token, which may not renew it",
    "FIELD_INVALID": "the service does not grant a life or a grace period of that length",
    "PERMISSION_DENIED": "it may not be renewed",
    "UNIMPLEMENTED": "the service is older than this library and cannot rotate tokens",
    TOKEN_ROTATED: "somebody else has rotated it, and the new token is not here",
    TOKEN_MALFORMED: "it is not one of Watchword's by its form",
    ANSWER_INVALID: "the service's answer held no token",
    SESSION: "it is a session, which ends at its hard end",
    HARD_END: "it has come up against an end that renewing does not move",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Why a call failed."""

    cause: str
    """The service's reason if it gave one, else the status' name, else the name of what was raised."""
    is_refusal: bool
    retry_seconds: float | None = None
    """After how long the service said to come again."""
    token_id: str = ""
    """With TOKEN_ROTATED: the successor's."""


def outcome_of(error: BaseException) -> Outcome:
    """What a failed call means. Nothing of its text is kept: it may come from anywhere."""
    # Not every RpcError has a code, and those of the two stacks have no other class in common.
    ask_code = getattr(error, "code", None) if isinstance(error, grpc.RpcError) else None
    code = ask_code() if callable(ask_code) else None
    if not isinstance(code, grpc.StatusCode):
        return Outcome(type(error).__name__, is_refusal=False)
    info = error_info(error)
    if info is None or info.domain != DOMAIN or not _REASON.fullmatch(info.reason):
        return Outcome(code.name, code in _REFUSALS, retry_delay_seconds(error))
    token_id = info.metadata.get("token_id", "")
    try:
        parse_token_id(token_id)
    except MalformedTokenError:
        token_id = ""
    return Outcome(info.reason, code in _REFUSALS, retry_delay_seconds(error), token_id)


def sentence_of(cause: str) -> str:
    """`cause` for people. What is no name of ours is said as it is: an error of this machine's, which has no token."""
    return _SENTENCES.get(cause, cause)
