"""Page sizes, opaque page tokens, and ids in requests."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from watchword.token import MalformedTokenError, parse_token_id
from watchword_server.answer.errors import FieldsInvalidError
from watchword_server.rules.fields import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

# gRPC's clients take 4 MiB at a time unless told otherwise.
PAGE_BYTES_MAX: Final = 2 * 1024 * 1024

M = TypeVar("M", bound=Message)


def page_size(asked: int) -> int:
    """How many to return: 0 is the default. Raises FieldsInvalidError."""
    if not 0 <= asked <= PAGE_SIZE_MAX:
        raise FieldsInvalidError([("page_size", f"must be from 0 to {PAGE_SIZE_MAX}")])
    return asked or PAGE_SIZE_DEFAULT


def fitting(entries: Iterable[M]) -> list[M]:
    """The first entries, as many as an answer should hold and at least one: long ones must not make a list that nobody
    can read, for whoever writes one would be unseen (test_a_page_of_long_entries_is_cut_short)."""
    page: list[M] = []
    total = 0
    for entry in entries:
        total += entry.ByteSize()
        if page and total > PAGE_BYTES_MAX:
            break
        page.append(entry)
    return page


def page_token_unknown() -> FieldsInvalidError:
    """To be raised for a page token that no answer can have held."""
    return FieldsInvalidError([("page_token", "is not one that this server gave")])


def page_token(after: str) -> str:
    """An opaque page token for "after this"."""
    return base64.urlsafe_b64encode(after.encode()).decode().rstrip("=")


def page_after(token: str) -> str:
    """Reads a page token. Raises FieldsInvalidError."""
    try:
        after = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise page_token_unknown() from None
    if "\x00" in after:
        raise page_token_unknown()
    return after


def page_after_id(token: str) -> UUID | None:
    """Reads a page token that holds an id; None for the first page. Raises FieldsInvalidError."""
    if not token:
        return None
    try:
        return UUID(page_after(token))
    except ValueError:
        raise page_token_unknown() from None


def token_id_of(text: str, path: str) -> UUID:
    """Reads a token's id. Raises FieldsInvalidError."""
    try:
        return parse_token_id(text)
    except MalformedTokenError:
        raise FieldsInvalidError([(path, "is not a token id (22 characters, as lists show them)")]) from None
