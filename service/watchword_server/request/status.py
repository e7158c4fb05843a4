"""What each refusal looks like on the wire: the only place where gRPC statuses are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from watchword.bearer import BearerError
from watchword.status import FieldViolation, details_trailer, field_detail, reason_detail, retry_detail
from watchword_server.answer.errors import (
    CallerUnknownError,
    DeadlineTooNearError,
    FieldsInvalidError,
    GrantMissingError,
    PepperUnknownError,
    RateLimitedError,
    RefusalError,
    RequestIdUsedError,
    ScopeMissingError,
    ScopeOwnedError,
    SubjectBlockedError,
    TokenNotFoundError,
    TokenNotLiveError,
    TokenRotatedError,
)
from watchword_server.replica.fence import LeaseMissingError
from watchword_server.replica.refusal import WatchRefusedError
from watchword_server.store.contract import (
    LastAdministratorError,
    PartitionMissingError,
    RowRefusedError,
    StoreOverloadedError,
    StoreUnavailableError,
)

Answer = tuple[grpc.StatusCode, str, Sequence[tuple[str, bytes]]]

# Status messages travel in a header that some peers cap; the details hold at most this many faults.
_FAULTS_MAX: Final = 16

_CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    FieldsInvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    CallerUnknownError: grpc.StatusCode.UNAUTHENTICATED,
    ScopeMissingError: grpc.StatusCode.PERMISSION_DENIED,
    GrantMissingError: grpc.StatusCode.PERMISSION_DENIED,
    RequestIdUsedError: grpc.StatusCode.ALREADY_EXISTS,
    ScopeOwnedError: grpc.StatusCode.ALREADY_EXISTS,
    SubjectBlockedError: grpc.StatusCode.PERMISSION_DENIED,
    TokenNotFoundError: grpc.StatusCode.NOT_FOUND,
    TokenNotLiveError: grpc.StatusCode.FAILED_PRECONDITION,
    TokenRotatedError: grpc.StatusCode.ALREADY_EXISTS,
    PepperUnknownError: grpc.StatusCode.UNAVAILABLE,
    RateLimitedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineTooNearError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_DENIED: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_OVERLOADED: Final = "OVERLOADED"
_WATCH_RETRIED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
_RETRY_SECONDS: Final = 1
INTERNAL_MESSAGE: Final = "internal error; the server's log has the details"


def answer_for(error: BaseException) -> Answer | None:
    """The status for an expected error; None for anything unknown, which must become INTERNAL_MESSAGE."""
    if isinstance(error, RefusalError):
        return _refusal(error)
    if isinstance(error, BearerError):
        return _answer(grpc.StatusCode.UNAUTHENTICATED, error.reason, str(error))
    if isinstance(error, StoreOverloadedError):
        return overloaded()
    if isinstance(error, WatchRefusedError):
        code = grpc.StatusCode[error.status]
        return _answer(code, error.reason, str(error), retry=code in _WATCH_RETRIED)
    if isinstance(error, LeaseMissingError):
        return _answer(
            grpc.StatusCode.UNAVAILABLE,
            "LEASE_MISSING",
            "this server may not judge now: it has lost touch with the others",
            retry=True,
        )
    if isinstance(error, StoreUnavailableError):
        return _answer(
            grpc.StatusCode.UNAVAILABLE,
            "DATABASE_UNAVAILABLE",
            "the database cannot be reached now; a write that was under way may or may not have been done",
            retry=True,
        )
    if isinstance(error, LastAdministratorError):
        return _answer(
            grpc.StatusCode.FAILED_PRECONDITION,
            "LAST_ADMINISTRATOR",
            "nobody could administer afterwards: issue another administrator's token first, or do it with --force"
            " (`force` in the request); nothing was done",
        )
    if isinstance(error, PartitionMissingError):
        return _answer(
            grpc.StatusCode.UNAVAILABLE,
            "PARTITION_MISSING",
            "no partition can hold this yet; `watchword doctor` on the server's machine says why",
            retry=True,
        )
    if isinstance(error, RowRefusedError):
        return _answer(grpc.StatusCode.INVALID_ARGUMENT, "ROW_REFUSED", "the database refused to store this")
    return None


def denial_in(answer: Answer) -> str:
    """The reason for which a call was decided against, for the audit log. Empty where nobody decided: the server was
    too busy, could not say, or had no time."""
    if answer[0] not in _DENIED:
        return ""
    (_, details), info = answer[2][0], ErrorInfo()
    Status.FromString(details).details[0].Unpack(info)
    return "" if info.reason == _OVERLOADED else info.reason


def overloaded() -> Answer:
    """Too much is under way already."""
    return _answer(grpc.StatusCode.RESOURCE_EXHAUSTED, _OVERLOADED, "the server is at its limit of calls", retry=True)


def draining() -> Answer:
    """The server is going away; nothing was begun."""
    return _answer(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is shutting down; nothing was done", retry=True)


def internal() -> Answer:
    """The one sentence for everything unknown: an exception's text may hold a connection string."""
    return _answer(grpc.StatusCode.INTERNAL, "INTERNAL", INTERNAL_MESSAGE)


def _refusal(error: RefusalError) -> Answer:
    code = _CODES[type(error)]
    extra: list[Message] = []
    if isinstance(error, FieldsInvalidError):
        extra.append(field_detail(*(FieldViolation(*fault) for fault in error.faults[:_FAULTS_MAX])))
    if isinstance(error, RateLimitedError):
        extra.append(retry_detail(error.retry_seconds))
    return _answer(code, error.reason, error.message, error.metadata, *extra, retry=code is grpc.StatusCode.UNAVAILABLE)


def _answer(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    metadata: Mapping[str, str] | None = None,
    *extra: Message,
    retry: bool = False,
) -> Answer:
    details = [reason_detail(reason, **(metadata or {})), *extra]
    if retry:
        details.append(retry_detail(_RETRY_SECONDS))
    return code, message, details_trailer(code, message, *details)
