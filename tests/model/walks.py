"""Random walks through the machine's rules: far more histories a second than Hypothesis draws, and of a better mix.

A walk is made from a number alone. What one of them finds is cut down to the steps that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from tests.model.machine import SECONDS_CHOICES, SUSPENDED_CHOICES, WHICH_MAX, Machine
from tests.model.parts import Parts
from tests.model.world import PropertyError

Draw = Callable[[Random], Any]
Step = tuple[str, dict[str, Any]]
STEPS_MAX = 40
# How likely a walk is to know a kind of fault at all. With all of them at once little ever works.
FAULT_SHARE = 0.2


def _which(random: Random) -> int:
    return random.randint(0, WHICH_MAX)


def _held(random: Random) -> list[int]:
    # The latest come first.
    return [min(_which(random), _which(random)) for _ in range(random.choice([0, 0, 1, 2, 3]))]


def _order(random: Random) -> list[int]:
    return [random.randint(0, 63) for _ in range(random.randint(1, 16))]


def _seconds(random: Random) -> float:
    return random.choice(SECONDS_CHOICES)


DAILY: Sequence[tuple[int, str, dict[str, Draw]]] = (
    (5, "go_on", {"order": _order}),
    (4, "all_else_settles", {"but": _held}),
    (1, "time_passes", {"seconds": _seconds}),
    (4, "all_else_is_well", {"seconds": _seconds, "but": _held}),
    (2, "a_replica_begins", {"which": _which, "name": lambda random: random.choice(Machine.WORK)}),
    (1, "a_lease_is_asked_for", {"which": _which}),
    (
        8,
        "a_call",
        {
            "verifier": _which,
            "token": _which,
            "replica": _which,
            "stays_open": lambda random: random.random() < 0.2,
            "steps": lambda random: random.choice([0, 1, 2, 2, 3]),
        },
    ),
    (1, "a_message", {"verifier": _which, "stream": _which, "replica": _which}),
    (1, "open_calls_are_judged_again", {"verifier": _which, "replica": _which}),
    (5, "a_token_is_issued", {}),
    (
        5,
        "a_revocation",
        {"replica": _which, "token": _which, "everything": lambda random: random.random() < 0.15, "but": _held},
    ),
    (2, "a_verifier_connects", {"verifier": _which, "replica": _which}),
)
FAULTS: Sequence[tuple[int, str, dict[str, Draw]]] = (
    (3, "a_verifier_forks", {"verifier": _which, "replica": _which}),
    (5, "a_stream_is_cut", {"which": _which}),
    (3, "a_connection_is_lost", {"which": _which}),
    (4, "a_process_stands_still", {"which": _which}),
    (2, "a_machine_is_suspended", {"which": _which, "seconds": lambda random: random.choice(SUSPENDED_CHOICES)}),
    (3, "a_replica_is_added", {}),
    (2, "a_replica_is_killed", {"which": _which}),
    (2, "a_verifier_is_replaced", {"which": _which, "replica": _which}),
    (3, "a_replica_drains", {"which": _which}),
    (3, "a_replica_leaves", {"which": _which}),
    (2, "a_standby_takes_over", {}),
    (2, "old_changes_are_pruned", {}),
)


def walk(number: int) -> list[Step]:
    """The steps of one walk."""
    random = Random(number)
    known = [*DAILY, *(fault for fault in FAULTS if random.random() < FAULT_SHARE)]
    weights = [weight for weight, _, _ in known]
    steps: list[Step] = [("begin", {"warm": random.random() < 0.5})]
    for _, name, draws in random.choices(known, weights, k=STEPS_MAX):
        steps.append((name, {argument: draw(random) for argument, draw in draws.items()}))
    return steps


def play(steps: Sequence[Step], parts: Parts) -> Machine:
    """The world after these steps. Raises PropertyError."""
    machine = Machine()
    machine.parts = parts
    for name, arguments in steps:
        getattr(machine, name)(**arguments)
        machine.what_always_holds()
    return machine


def breaks(steps: Sequence[Step], parts: Parts) -> bool:
    """Whether they break the guarantee."""
    try:
        play(steps, parts)
    except PropertyError:
        return True
    return False


def shrunk(steps: Sequence[Step], parts: Parts) -> list[Step]:
    """No step of what is left can be left out."""
    left = list(steps)
    for at in range(len(left) - 1, 0, -1):
        without = left[:at] + left[at + 1 :]
        if breaks(without, parts):
            left = without
    return left


def first_to_break(parts: Parts, numbers: Iterable[int]) -> int | None:
    """The first of these walks that breaks the guarantee."""
    return next((number for number in numbers if breaks(walk(number), parts)), None)
