"""What a hello, and a position in any message, has to be like, whatever the stream stands at."""

from __future__ import annotations

from typing import Final

from watchword.v1 import token_service_pb2
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica import refusal

KEY_BYTES: Final = 16
NAME_CHARACTERS_MAX: Final = 255
LIBRARY_CHARACTERS_MAX: Final = 64


def lease_asked_seconds(hello: pb.Hello) -> float:
    """The lease that a hello asks for. Raises WatchRefusedError for one that no verifier says."""
    if len(hello.verifier_key) != KEY_BYTES:
        raise refusal.protocol(f"verifier_key has {KEY_BYTES} bytes")
    if max(len(hello.name), len(hello.instance)) > NAME_CHARACTERS_MAX:
        raise refusal.protocol(f"name and instance have at most {NAME_CHARACTERS_MAX} characters")
    if len(hello.library) > LIBRARY_CHARACTERS_MAX:
        raise refusal.protocol(f"library has at most {LIBRARY_CHARACTERS_MAX} characters")
    asked_seconds = hello.lease.seconds + hello.lease.nanos / 1e9
    if asked_seconds <= 0:
        raise refusal.protocol("lease is a positive duration")
    return asked_seconds


def checked(position: token_service_pb2.Position) -> token_service_pb2.Position:
    """The position. Raises WatchRefusedError if it has no epoch."""
    if len(position.epoch) != KEY_BYTES:
        raise refusal.protocol(f"an epoch has {KEY_BYTES} bytes")
    return position
