"""One measured figure, and the arithmetic that all of them share."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal, TypeVar

Comparison = Literal[">=", "<="]
First = TypeVar("First")
Second = TypeVar("Second")

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {">=": operator.ge, "<=": operator.le}


class MeasurementError(RuntimeError):
    """What was counted is not what was sent, or a part needed for it is missing: there is no figure then, at all."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The bound a figure has to keep."""

    comparison: Comparison
    bound: float

    def met_by(self, value: float) -> bool:
        return _COMPARE[self.comparison](value, self.bound)

    def __str__(self) -> str:
        return f"{self.comparison} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A result. `baseline` holds both sides of the division, and the load they were measured under."""

    name: str
    value: float
    unit: str
    goal: Goal
    baseline: Mapping[str, float]
    spread: tuple[float, float] = field(default=(0.0, 0.0))
    """The lowest and the highest round: a wide one says that the machine was noisy."""

    @property
    def met(self) -> bool:
        return self.goal.met_by(self.value)


def figure_of_rounds(
    name: str, rounds: Sequence[float], unit: str, goal: Goal, baseline: Mapping[str, float]
) -> Figure:
    """The median over rounds, which one disturbed round cannot move."""
    if not rounds:
        raise MeasurementError(f"{name}: no rounds")
    return Figure(name, median(rounds), unit, goal, {**baseline, "rounds": len(rounds)}, (min(rounds), max(rounds)))


def interleaved(
    rounds: int, first: Callable[[int], First], second: Callable[[int], Second]
) -> list[tuple[First, Second]]:
    """Runs two sides as A B, B A, A B...: a machine that slows down steadily then favours neither.

    Each side gets the round's number; the pairs come back as (first, second) whatever the order was.
    """
    pairs: list[tuple[First, Second]] = []
    for number in range(rounds):
        if number % 2 == 0:
            a = first(number)
            b = second(number)
        else:
            b = second(number)
            a = first(number)
        pairs.append((a, b))
    return pairs
