"""Where this repository's Python files are, and what they say: read once for all the rules held over them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("clients/python/watchword/v1/", "examples/orders/v1/")


@dataclass(frozen=True)
class Source:
    """One Python file; `name` is its path from the root, with slashes."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.name}:{node.lineno}"


def sources(*folders: str) -> Iterator[Source]:
    """Every hand-written Python file below these folders; generated code is held by the diff alone."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(GENERATED) and "__pycache__" not in path.parts:
                yield Source(name, path.read_text(encoding="utf-8"))
