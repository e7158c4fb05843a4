"""Rich errors survive the trip into a trailer and back, and garbage from the network does not raise."""

import grpc
import pytest
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from watchword.status import (
    DETAILS_KEY,
    FieldViolation,
    details_trailer,
    error_info,
    field_detail,
    field_violations,
    reason_detail,
    retry_delay_seconds,
    retry_detail,
)


class Failed:
    """As much of a failed call as the readers look at."""

    def __init__(self, trailers: object) -> None:
        self._trailers = trailers

    def trailing_metadata(self) -> object:
        return self._trailers


def test_every_detail_is_read_back() -> None:
    violations = [FieldViolation("subject", "too long"), FieldViolation("scopes[3]", "unknown")]
    failed = Failed(
        details_trailer(
            grpc.StatusCode.UNAVAILABLE,
            "later",
            retry_detail(1.25),
            field_detail(*violations),
            reason_detail("OVERLOADED", queue="issue"),
        )
    )
    info = error_info(failed)
    assert info is not None
    assert (info.reason, info.domain, dict(info.metadata)) == ("OVERLOADED", "watchword", {"queue": "issue"})
    assert retry_delay_seconds(failed) == 1.25
    assert field_violations(failed) == violations


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_the_trailer_repeats_the_status(code: grpc.StatusCode) -> None:
    ((key, value),) = details_trailer(code, "sentence")
    status = Status.FromString(value)
    assert key == DETAILS_KEY
    assert (Code.Name(status.code), status.message) == (code.name, "sentence")


@pytest.mark.parametrize(
    "failed",
    [
        Failed(None),
        Failed(()),
        Failed([("other-bin", b"x")]),
        Failed([(DETAILS_KEY, b"\xff\xff")]),
        Failed([(DETAILS_KEY, b"")]),
        Failed([(DETAILS_KEY, "text")]),
        Failed(details_trailer(grpc.StatusCode.INTERNAL, "no details")),
        ValueError("not a call"),
    ],
)
def test_a_call_without_readable_details_has_none(failed: object) -> None:
    assert error_info(failed) is None
    assert retry_delay_seconds(failed) is None
    assert field_violations(failed) == []


def test_a_negative_retry_delay_is_refused() -> None:
    for delay in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="zero or more"):
            retry_detail(delay)
