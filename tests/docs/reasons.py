"""The reason in an answer's details."""

from __future__ import annotations

from collections.abc import Sequence

from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status


def reason_in(trailer: Sequence[tuple[str, bytes]]) -> str:
    """The reason of the ErrorInfo in a details trailer; empty without one."""
    info = ErrorInfo()
    for detail in Status.FromString(trailer[0][1]).details:
        if detail.Unpack(info):
            break
    return info.reason
