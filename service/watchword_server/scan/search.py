"""The search itself: tokens in a stream of bytes, by their prefix and then by their checksum.

Nothing is decoded and no line is split off: a needle is looked for in a large buffer, and only what stands behind one
is taken apart. UTF-16 is found beside ASCII, because that is what PowerShell writes into a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from watchword.token import BODY_LENGTH, MalformedTokenError, ParsedToken, check_prefix, parse_token

CHUNK_BYTES: Final = 1 << 20

ReadInto = Callable[[memoryview], int]
"""Fills the view from its start and says with how many bytes; 0 is the end."""


class Hit(NamedTuple):
    """A token, and the line on which it begins, counted from 1. The token is a secret: its `repr` is its id."""

    line: int
    token: ParsedToken


@dataclass(frozen=True, slots=True)
class _Needle:
    """What is looked for on behalf of one prefix, in one encoding."""

    text: bytes
    prefix: str
    step: int
    """From one of the token's characters to the next, in bytes."""

    @property
    def span(self) -> int:
        """How far a token reaches, in bytes."""
        return (len(self.prefix) + BODY_LENGTH - 1) * self.step + 1


class Searcher:
    """Searches one stream after the other. Not for several threads: the buffer is used again."""

    def __init__(self, prefixes: Sequence[str], chunk_bytes: int = CHUNK_BYTES) -> None:
        """Raises ValueError for what is no prefix of tokens."""
        self._needles = [_needle(check_prefix(prefix), step) for prefix in dict.fromkeys(prefixes) for step in (1, 2)]
        self._span = max(needle.span for needle in self._needles)
        self._buffer = bytearray(max(chunk_bytes, 2 * self._span))

    def hits(self, read_into: ReadInto) -> Iterator[Hit]:
        """Every token in the stream, in its order. Raises what `read_into` raises."""
        buffer, view = self._buffer, memoryview(self._buffer)
        filled, line = 0, 1
        while True:
            while filled < len(buffer) and (count := read_into(view[filled:])):
                filled += count
            ended = filled < len(buffer)
            # What begins so late that it may go on in the next chunk is left to the next round.
            decided = filled if ended else filled - self._span + 1
            yield from self._hits_within(filled, decided, line)
            if ended:
                return
            line += buffer.count(b"\n", 0, decided)
            view[: filled - decided] = bytes(view[decided:filled])
            filled -= decided

    def _hits_within(self, filled: int, decided: int, line: int) -> Iterator[Hit]:
        found: list[tuple[int, ParsedToken]] = []
        # Of text without a zero no more is asked: it has no UTF-16.
        has_zeros = self._buffer.find(0, 0, filled) >= 0
        for needle in self._needles:
            if needle.step == 2 and not has_zeros:
                continue
            at = self._buffer.find(needle.text, 0, filled)
            while 0 <= at < decided:
                token = self._token_at(at, filled, needle)
                if token is not None:
                    found.append((at, token))
                at = self._buffer.find(needle.text, at + 1, filled)
        counted = 0
        for at, token in sorted(found):
            line += self._buffer.count(b"\n", counted, at)
            counted = at
            yield Hit(line, token)

    def _token_at(self, at: int, filled: int, needle: _Needle) -> ParsedToken | None:
        end = min(at + needle.span, filled)
        if needle.step == 2 and any(self._buffer[at + 1 : end : 2]):
            return None
        try:
            return parse_token(bytes(self._buffer[at : end : needle.step]), needle.prefix)
        except MalformedTokenError:
            return None


def _needle(prefix: str, step: int) -> _Needle:
    # Both byte orders of UTF-16 have the characters two bytes apart with a zero between: one needle finds both.
    return _Needle(prefix.encode("utf-16-le")[: 2 * len(prefix) - 1] if step == 2 else prefix.encode(), prefix, step)
