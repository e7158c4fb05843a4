"""What the callers do, drawn from a seed: the same seed makes the same choices in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

WAYS = ("token", "token_id", "subject", "issued_by", "cascade", "narrow", "idle")


@dataclass(frozen=True, slots=True)
class Family:
    """Tokens that are issued, used for a while and revoked together: a parent, its children, and theirs."""

    way: str
    """By what they end: `cascade` revokes the parent and everything below, `narrow` takes the parent's scope, `idle`
    are sessions that are left alone."""
    children_count: int
    ttl_seconds: int
    linger_seconds: float
    late: bool
    """The last token is first presented while the revocation is under way, so much later:"""
    late_seconds: float
    waits: bool
    replica: int
    """Any number; taken modulo their count."""
    tied: bool = False
    """The children die with the parent's lineage."""
    rotates: bool = False
    """The parent is succeeded before the end, with so much grace:"""
    grace_seconds: int = 0


def families(seed: int, lane: int, *, lease_seconds: float) -> Iterator[Family]:
    """What one lane of issuers and revokers does, without end."""
    random = Random(f"{seed}-family-{lane}")
    while True:
        yield Family(
            way=random.choice(WAYS),
            children_count=random.randint(1, 3),
            # A few end by themselves before they are revoked, or while.
            ttl_seconds=random.choice([2, 4, 3600, 3600, 3600, 3600]),
            linger_seconds=random.uniform(0.1, lease_seconds),
            late=random.random() < 0.4,
            late_seconds=random.uniform(0, 0.02),
            waits=random.random() < 0.9,
            replica=random.randrange(1000),
            tied=random.random() < 0.4,
            rotates=random.random() < 0.4,
            grace_seconds=random.choice([0, 1, 3600]),
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One call with a token, or one stream of them."""

    pick: float
    """Which of the tokens at hand, from 0 to 1."""
    revoked: bool
    """One that is revoked already, or being so."""
    patience_seconds: float
    """The long ones are still there when a frozen verifier wakes."""
    pause_seconds: float
    messages_count: int


def checks(seed: int, caller: str, *, lease_seconds: float) -> Iterator[Check]:
    """What one caller of one verifier does, without end."""
    random = Random(f"{seed}-check-{caller}")
    while True:
        yield Check(
            pick=random.random(),
            revoked=random.random() < 0.2,
            patience_seconds=lease_seconds * (4 if random.random() < 0.2 else 0.75),
            pause_seconds=random.uniform(0.01, 0.05),
            messages_count=random.randint(10, 200),
        )
