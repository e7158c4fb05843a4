"""Tokens that requests present whole, beside the one they are made with."""

from __future__ import annotations

from collections.abc import Sequence

from watchword.token import ParsedToken
from watchword.v1 import token_service_pb2 as pb
from watchword_server.answer.errors import FieldsInvalidError

Presenting = pb.RevokeRequest | pb.GetTokenRequest | pb.ListScopesRequest


def token_field_if_set(request: Presenting) -> Sequence[str]:
    """What a request presents that may name a token otherwise."""
    # Also when it is set to nothing at all: that is a malformed token, and not none.
    return (request.token,) if request.HasField("token") else ()


def well_formed(tokens: Sequence[ParsedToken | None]) -> ParsedToken:
    """The one token that a request presents. Raises FieldsInvalidError."""
    token = tokens[0]
    if token is None:
        raise FieldsInvalidError([("token", "is not a token: wrong length, prefix or checksum; was it cut off?")])
    return token
