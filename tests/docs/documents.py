"""The documents' text: their tables and fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.tooling.sources import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, under the heading above it."""

    heading: str
    language: str
    text: str


def text_of(path: str) -> str:
    """A document's text, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(path: str) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    text = text_of(path)
    headings = [(found.start(), found[1]) for found in _HEADING.finditer(_without_fences(text))]
    for fence in _FENCE.finditer(text):
        above = [heading for at, heading in headings if at < fence.start()]
        yield Block(above[-1] if above else "", fence[1], fence[2])


def section(path: str, heading: str) -> str:
    """The text under a heading, through the next heading of any level."""
    text = text_of(path)
    headings = list(_HEADING.finditer(_without_fences(text)))
    for at, found in enumerate(headings):
        if found[1] == heading:
            end = headings[at + 1].start() if at + 1 < len(headings) else len(text)
            return text[found.end() : end]
    raise AssertionError(f"{path} has no heading {heading!r}")


def rows(path: str, heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their head and rule."""
    lines = [line for line in section(path, heading).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [
        row
        for at, row in enumerate(cells)
        if not _is_rule(row) and not (at + 1 < len(cells) and _is_rule(cells[at + 1]))
    ]


def code(cell: str) -> list[str]:
    """What a cell has between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def _is_rule(row: list[str]) -> bool:
    return all(re.fullmatch(r":?-+:?", cell) for cell in row)


def _without_fences(text: str) -> str:
    # A comment line in a shell block is no heading; positions stay as they are.
    return _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)
