"""What is broken when, drawn from a seed: the same seed breaks the same things in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

WIRE_MODES = ("cut", "hole", "hole_up", "hole_down", "half_open", "latency", "slow")
STOPS = (0.5, 1.0, 3.0)
"""Leases for which something is frozen."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault."""

    kind: str
    """See faults.Faults, which has a method for each."""
    pick: int = 0
    """Which of those that it can befall; taken modulo their count."""
    leases: float = 1.0
    """For how long."""
    mode: str = ""
    """Of a wire."""


@dataclass(frozen=True, slots=True)
class Plan:
    """First what befalls verifiers alone, when every revocation has to be prompt; then two lanes at once."""

    alone: tuple[Step, ...]
    verifiers: tuple[Step, ...]
    authority: tuple[Step, ...]


def short() -> Plan:
    """Each kind of fault at least once, in about a minute."""
    return Plan(
        alone=(Step("stop_verifier", 0, 3.0),),
        verifiers=(
            Step("jump", 0),
            Step("verifier_wire", 0, 1.5, "hole"),
            Step("verifier_wire", 1, 1.5, "hole_up"),
            Step("kill_verifier", 0),
            Step("verifier_wire", 0, 1.5, "hole_down"),
            Step("verifier_wire", 1, 1.0, "half_open"),
            Step("stop_verifier", 1, 1.0),
            Step("verifier_wire", 0, 1.0, "latency"),
            Step("verifier_wire", 1, 0.5, "cut"),
            Step("verifier_wire", 0, 1.0, "slow"),
            Step("jump", 1),
        ),
        authority=(
            Step("burst", 0),
            Step("stop_replica", 0, 3.0),
            Step("prune", 0, 1.0),
            Step("stop_postgres", 0, 0.5),
            Step("postgres_wire", 1, 1.5, "hole"),
            Step("rolling_restart"),
            Step("kill_postgres"),
            Step("postgres_wire", 0, 0.5, "half_open"),
            Step("kill_replica", 0),
            Step("restart_everything"),
        ),
    )


def drawn(seed: int) -> Iterator[Plan]:
    """Round after round, without end."""
    random = Random(f"{seed}-plan")
    while True:
        yield Plan(
            alone=tuple(_of_verifiers(random) for _ in range(random.randint(1, 3))),
            verifiers=tuple(_of_verifiers(random) for _ in range(random.randint(2, 6))),
            authority=tuple(_of_the_authority(random) for _ in range(random.randint(2, 5))),
        )


def _of_verifiers(random: Random) -> Step:
    pick, leases = random.randrange(1000), random.choice(STOPS)
    kind = random.choice(["stop_verifier", "stop_verifier", "kill_verifier", "jump", "verifier_wire", "verifier_wire"])
    return Step(kind, pick, leases, random.choice(WIRE_MODES) if kind == "verifier_wire" else "")


def _of_the_authority(random: Random) -> Step:
    pick, leases = random.randrange(1000), random.choice(STOPS)
    kind = random.choice(
        [
            *["stop_replica", "stop_replica", "kill_replica", "kill_replica", "stop_postgres", "kill_postgres"],
            *["postgres_wire", "postgres_wire", "burst", "prune", "rolling_restart", "restart_everything"],
        ]
    )
    return Step(kind, pick, leases, random.choice(WIRE_MODES) if kind == "postgres_wire" else "")
