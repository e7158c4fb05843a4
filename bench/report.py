"""The table for people and the file for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure


def as_records(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """One record a figure; `baseline` holds both sides of the division and the load they were measured under."""
    return [
        {
            "name": figure.name,
            "value": round(figure.value, 4),
            "unit": figure.unit,
            "goal": str(figure.goal),
            "baseline": {name: round(value, 2) for name, value in figure.baseline.items()},
        }
        for figure in figures
    ]


def write_json(figures: Sequence[Figure], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_records(figures), indent=2) + "\n")


def line(figure: Figure) -> str:
    """One line of the table."""
    low, high = figure.spread
    parts = ", ".join(f"{name} {value:,.4g}" for name, value in figure.baseline.items())
    verdict = "met" if figure.met else "MISSED"
    span = f"{low:.3g} .. {high:.3g}"
    return f"{figure.name:<36}{figure.value:>9.3f} {figure.unit:<16}{figure.goal!s:<9}{verdict:<7} {span:<16} {parts}"


def heading() -> str:
    return f"{'figure':<36}{'median':>9} {'unit':<16}{'goal':<9}{'':<7} {'rounds':<16} measured beside it"
