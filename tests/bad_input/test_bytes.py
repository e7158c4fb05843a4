"""Bytes that are no request: told to whoever may call, and to nobody else."""

from __future__ import annotations

import grpc
import pytest

from tests.path.party import Party, code_of, refused, unique
from tests.path.test_access import METHODS, REQUESTS, STOPPED
from watchword.v1 import token_service_pb2 as pb

MALFORMED = {
    "truncated field": b"\x0a\x10short",
    "truncated varint": b"\x18\xff",
    "endless varint": b"\x18" + b"\xff" * 11,
    "reserved wire type": b"\x0f",
    "field number zero": b"\x00\x00",
    "group never ended": b"\x0b",
    "noise": bytes(range(255, 200, -1)),
}
BAD_UTF8 = {
    "stray continuation": b"\x0a\x01\x80",
    "overlong slash": b"\x0a\x02\xc0\xaf",
    "surrogate": b"\x0a\x03\xed\xa0\x80",
    "beyond Unicode": b"\x0a\x04\xf4\x90\x80\x80",
}
# Their field 1 is a string.
WITH_TEXT_FIRST = [path for path in METHODS if path.endswith(("/Issue", "/Validate", "/Revoke", "/GetToken"))]


@pytest.mark.parametrize("kind", sorted(MALFORMED))
@pytest.mark.parametrize("path", METHODS)
def test_malformed_bytes_are_an_invalid_argument(admin: Party, path: str, kind: str) -> None:
    answer = refused(admin.send, path, MALFORMED[kind])
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert answer.fields == ("request",)


@pytest.mark.parametrize("kind", sorted(BAD_UTF8))
@pytest.mark.parametrize("path", WITH_TEXT_FIRST)
def test_text_that_is_no_utf8_is_an_invalid_argument(admin: Party, path: str, kind: str) -> None:
    answer = refused(admin.send, path, BAD_UTF8[kind])
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("request",))


@pytest.mark.parametrize("path", METHODS)
def test_a_request_cut_anywhere_is_refused_or_understood(admin: Party, path: str) -> None:
    whole = REQUESTS[path].SerializeToString()
    caller = admin.party(unique(), ["watchword.validate"])
    for end in range(len(whole)):
        # Some beginnings are requests of their own.
        assert code_of(caller.send, path, whole[:end]) in {
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.PERMISSION_DENIED,
        }, whole[:end]


@pytest.mark.parametrize("path", METHODS)
def test_without_a_token_nobody_learns_that_the_bytes_are_malformed(admin: Party, path: str) -> None:
    answer = refused(admin.send, path, b"\x0a\x10short", metadata=())
    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")
    assert answer.fields == ()


@pytest.mark.parametrize("path", METHODS)
def test_without_the_scope_nobody_learns_that_the_bytes_are_malformed(admin: Party, path: str) -> None:
    caller = admin.party(unique())
    answer = refused(caller.send, path, b"\x0a\x10short")
    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


def test_an_inactive_caller_does_not_learn_it_either(admin: Party) -> None:
    caller = admin.party(unique(), ["watchword.*"])
    admin.revoke(token_id=caller.token_id)
    for path in METHODS:
        assert refused(caller.send, path, b"\xff").code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("path", METHODS)
def test_unknown_fields_are_ignored(admin: Party, path: str) -> None:
    # Field 5000, length-delimited: what a newer client might send.
    unknown = b"\xc2\xb8\x02\x05newer"
    caller = admin.party(unique(), ["watchword.*"])
    data = REQUESTS[path].SerializeToString() + unknown
    if path in STOPPED:
        assert refused(caller.send, path, data).reason == STOPPED[path]
    else:
        caller.send(path, data)


@pytest.mark.parametrize("path", METHODS)
def test_empty_bytes_are_an_empty_request(admin: Party, path: str) -> None:
    caller = admin.party(unique(), ["watchword.*"])
    # An empty Rotate is one of the calling token.
    if path.endswith(("/ListScopes", "/ListTokens", "/ListEvents", "/ListBlockedSubjects", "/Validate", "/Rotate")):
        caller.send(path, b"")
    else:
        answer = refused(caller.send, path, b"")
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


def _of_size(size: int) -> bytes:
    """A ValidateRequest of exactly so many bytes."""
    length = size - 5
    data = pb.ValidateRequest(token="x" * length).SerializeToString()
    assert len(data) == size
    return data


def test_a_request_of_4_mib_is_read_and_one_byte_more_is_refused(admin: Party) -> None:
    path = "/watchword.v1.TokenService/Validate"
    answer = pb.ValidateResponse.FromString(admin.send(path, _of_size(4 * 1024 * 1024)))
    assert answer.WhichOneof("verdict") == "inactive"
    assert refused(admin.send, path, _of_size(4 * 1024 * 1024 + 1)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("path", METHODS)
def test_four_megabytes_of_noise_are_refused_by_every_method(admin: Party, path: str) -> None:
    answer = refused(admin.send, path, b"\x0a\x01x" * 1_300_000 + b"\xff")
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
