"""A cache with a manual clock, tokens and answers for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.clocks import ManualClock
from watchword.identity import Identity
from watchword.lease import instant
from watchword.token import format_token_id, new_token, new_token_id
from watchword.verifier import Active, Answer, Inactive, Position
from watchword.verifier.cache import Cache
from watchword.verifier.limits import CacheLimits

EPOCH = b"e" * 16
OTHER_EPOCH = b"f" * 16
LEASE_SECONDS = 60.0
READ = ("orders.read",)
WRITE = ("orders.write",)
FAR_MS = 1 << 44


@dataclass(frozen=True, slots=True)
class Made:
    """A token that nobody issued."""

    text: str
    token_id: str


def made() -> Made:
    token = new_token(new_token_id(FAR_MS))
    return Made(token.text.decode("ascii"), format_token_id(token.token_id))


def forged(token: Made) -> Made:
    """Another secret around the same id."""
    other = made().text
    return Made(token.text[:25] + other[25:], token.token_id)


def active(
    token: Made,
    number: int,
    *,
    epoch: bytes = EPOCH,
    subject: str = "ada",
    scopes: tuple[str, ...] = READ,
    metadata: Mapping[str, str] | None = None,
    cacheable_for_seconds: float = 600.0,
    remaining_seconds: float = 3600.0,
) -> Answer:
    identity = Identity(token.token_id, subject, scopes, ("*",), metadata or {})
    return Answer(Active(identity), Position(epoch, number), cacheable_for_seconds, remaining_seconds)


def inactive(number: int, *, cacheable_for_seconds: float = 30.0) -> Answer:
    return Answer(Inactive(), Position(EPOCH, number), cacheable_for_seconds, 0.0)


@dataclass(slots=True)
class Bench:
    """A cache at a position of EPOCH, under a live lease."""

    number: int = 10
    limits: CacheLimits = field(default_factory=CacheLimits)
    clock: ManualClock = field(default_factory=ManualClock)
    made_by: type[Cache] = Cache
    cache: Cache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = self.made_by(self.clock, limits=self.limits)
        self.cache.flush(EPOCH, self.number)
        self.lease()

    def lease(self, seconds: float = LEASE_SECONDS) -> None:
        self.cache.grant(instant(self.clock), seconds, EPOCH, self.cache.applied)

    def ask(self, token: Made, answer: Answer) -> None:
        """A whole lookup."""
        self.cache.finish(self.cache.begin(token.text), answer)

    def change(self, number: int, *tokens: Made, everything: bool = False, last: bool = True) -> None:
        self.cache.apply(number, [token.token_id for token in tokens], everything=everything, last=last)

    def accepts(self, token: Made) -> bool:
        return isinstance(self.cache.decide(token.text, READ), Active)

    def knows(self, token: Made) -> bool:
        return self.cache.decide(token.text, READ) is not None
