"""How much an answer holds."""

from __future__ import annotations

from watchword.v1 import token_service_pb2 as pb
from watchword_server.request.pages import PAGE_BYTES_MAX, fitting


def entry(size: int) -> pb.Token:
    """A token of exactly so many bytes."""
    made = pb.Token(name="x" * size)
    made.name = "x" * (2 * size - made.ByteSize())
    assert made.ByteSize() == size
    return made


def test_a_page_of_long_entries_is_cut_short() -> None:
    half = entry(PAGE_BYTES_MAX // 2)
    assert fitting([half, half]) == [half, half]
    assert fitting([half, half, entry(100)]) == [half, half]


def test_an_entry_longer_than_a_page_is_a_page() -> None:
    long = entry(PAGE_BYTES_MAX + 100)
    assert fitting([long, long]) == [long]


def test_no_entries_are_an_empty_page() -> None:
    assert fitting([]) == []
