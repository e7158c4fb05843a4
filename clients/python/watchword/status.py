"""Rich error answers: google.rpc.Status in the `grpc-status-details-bin` trailer, written by servers, read by clients.

Reasons are machine-readable and stable (google.rpc.ErrorInfo, https://google.aip.dev/193); sentences are for people and
may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN: Final = "watchword"
DETAILS_KEY: Final = "grpc-status-details-bin"
_NANOS: Final = 1_000_000_000

_M = TypeVar("_M", bound=Message)


class _HasTrailers(Protocol):
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that was refused: its path (`grants[0].scopes[2]`) and what is wrong with it."""

    field: str
    description: str


def details_trailer(code: grpc.StatusCode, message: str, *details: Message) -> tuple[tuple[str, bytes]]:
    """The trailing metadata to send with status `code` and `message`: one entry that holds all `details`.

    Code and message have to be those of the status itself: readers compare them. The result is constant for constant
    arguments, so the refusals of a hot path can be encoded once.
    """
    # google.rpc.Code has grpc.StatusCode's numbers.
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return ((DETAILS_KEY, status.SerializeToString()),)


def reason_detail(reason: str, /, **metadata: str) -> ErrorInfo:
    """Why a call was refused: `reason` in UPPER_SNAKE_CASE, in Watchword's domain, with string metadata."""
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def retry_detail(delay_seconds: float) -> RetryInfo:
    """After how many seconds a retry makes sense. Raises ValueError for a negative delay."""
    if not delay_seconds >= 0:
        raise ValueError("a retry delay is zero or more seconds")
    nanos = round(delay_seconds * _NANOS)
    return RetryInfo(retry_delay=Duration(seconds=nanos // _NANOS, nanos=nanos % _NANOS))


def field_detail(*violations: FieldViolation) -> BadRequest:
    """Which fields of the request were refused, for INVALID_ARGUMENT."""
    return BadRequest(
        field_violations=[BadRequest.FieldViolation(field=v.field, description=v.description) for v in violations]
    )


def error_info(rpc_error: object) -> ErrorInfo | None:
    """The ErrorInfo of a failed call, or None if it carries none. Takes what `except grpc.RpcError` caught, from
    either stack; trailers that do not parse count as none: they come from the network.
    """
    return _detail(rpc_error, ErrorInfo)


def retry_delay_seconds(rpc_error: object) -> float | None:
    """How many seconds the server asks to wait before a retry, or None if it does not say."""
    found = _detail(rpc_error, RetryInfo)
    if found is None:
        return None
    return found.retry_delay.seconds + found.retry_delay.nanos / _NANOS


def field_violations(rpc_error: object) -> list[FieldViolation]:
    """The fields that the server refused, in its order; empty if it names none."""
    found = _detail(rpc_error, BadRequest)
    if found is None:
        return []
    return [FieldViolation(one.field, one.description) for one in found.field_violations]


def _detail(rpc_error: object, kind: type[_M]) -> _M | None:
    if not hasattr(rpc_error, "trailing_metadata"):
        return None
    for key, value in cast(_HasTrailers, rpc_error).trailing_metadata() or ():
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            for packed in Status.FromString(value).details:
                detail = kind()
                if packed.Unpack(detail):
                    return detail
        except DecodeError:
            return None
    return None
