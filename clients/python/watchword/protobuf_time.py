"""Between protobuf's durations and instants, and seconds as a float."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS: Final = 1_000_000_000


def seconds_of(message: Duration | Timestamp) -> float:
    """A length in seconds, or an instant in unix seconds."""
    return message.seconds + message.nanos / _NANOS


def duration_of(seconds: float) -> Duration:
    """`seconds`, which is not negative, as a Duration."""
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return Duration(seconds=whole, nanos=nanos)


def timestamp_of(unix_seconds: float) -> Timestamp:
    """An instant in unix seconds, as a Timestamp."""
    whole, nanos = divmod(round(unix_seconds * _NANOS), _NANOS)
    return Timestamp(seconds=whole, nanos=nanos)
