"""What a run leaves behind: one line for each operation, with when it was invoked and when it returned.

All processes write by one clock, CLOCK_MONOTONIC, which on Linux is the same in every process of a machine. Tokens are
named by their ids; no secret is ever written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

NEVER: Final = float("inf")


def now() -> float:
    """Seconds of the machine's one monotonic clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Issue:
    """A token was asked for. `token` is empty where no answer came."""

    token: str
    subject: str
    issued_by: str
    ttl_seconds: float
    invoked: float
    returned: float
    outcome: str
    """`acknowledged`, or `unknown`: it may be stored, and nobody has the secret."""
    tied: bool = False
    """It dies with the lineage of its issuer."""
    idle_seconds: float = 0.0
    """A session's; 0: it is none."""


@dataclass(frozen=True, slots=True)
class Rotate:
    """A token was to be succeeded. The successor has an Issue of its own, with the same times."""

    token: str
    successor: str
    """Empty where no answer came."""
    grace_seconds: float
    invoked: float
    returned: float
    outcome: str
    """As a Revoke's: `complete` when all know of the token's new end."""
    effective_seconds: float = 0.0
    code: str = "OK"


@dataclass(frozen=True, slots=True)
class Revoke:
    """Tokens were to end: those that `by` and `value` name."""

    by: str
    """`token`, `token_id`, `subject` or `issued_by`; `narrow` takes the scope that the guarded calls need."""
    value: str
    """A token's id, or a subject."""
    cascade: bool
    waits: bool
    invoked: float
    returned: float
    outcome: str
    """`complete`, `pending`, `refused` (it did nothing), or `unknown`: it may be done, or be done later."""
    effective_seconds: float = 0.0
    """With `pending`: how much longer, at most, something may accept them."""
    code: str = "OK"
    """The gRPC status."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One judgement of a token, seen by a caller (`unary`, `message`) or inside a verifier (`judged`)."""

    token: str
    kind: str
    verifier: str
    invoked: float
    returned: float
    outcome: str
    """`accept`, `inactive`, or `unavailable`: no judgement was made, or its answer was lost."""
    code: str = "OK"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was broken from `began` to `ended`."""

    kind: str
    target: str
    began: float
    ended: float
    verifiers_only: bool = False
    """It reached verifiers and their connections alone: a Revoke is COMPLETE within the lease all the same."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a verifier counted since its process began."""

    verifier: str
    at: float
    hits: int
    misses: int
    attached: bool


@dataclass(frozen=True, slots=True)
class Lag:
    """A timer in the callers' process fired this late: the machine was busy, not the product slow."""

    at: float
    seconds: float


Record = Issue | Rotate | Revoke | Decision | Fault | Status | Lag
_KINDS: Final[dict[str, type[Any]]] = {
    "issue": Issue,
    "rotate": Rotate,
    "revoke": Revoke,
    "decision": Decision,
    "fault": Fault,
    "status": Status,
    "lag": Lag,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


class Log:
    """One process's records in a file of its own. What was written survives the process's death at any moment."""

    def __init__(self, path: Path) -> None:
        # Appending: a verifier that was killed goes on in the same file.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, record: Record) -> None:
        """Appends one record. Thread-safe: the kernel keeps appended lines apart."""
        line = json.dumps({"record": _NAMES[type(record)], **asdict(record)}) + "\n"
        os.write(self._descriptor, line.encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class History:
    """All records of a run, by kind."""

    issues: list[Issue] = field(default_factory=list)
    rotates: list[Rotate] = field(default_factory=list)
    revokes: list[Revoke] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> History:
        """Sorts records by kind."""
        history = cls()
        places: dict[type[Any], list[Any]] = {
            Issue: history.issues,
            Rotate: history.rotates,
            Revoke: history.revokes,
            Decision: history.decisions,
            Fault: history.faults,
            Status: history.statuses,
            Lag: history.lags,
        }
        for record in records:
            places[type(record)].append(record)
        return history

    @classmethod
    def read(cls, folder: Path) -> History:
        """What all processes wrote into a folder."""
        return cls.of(record for path in sorted(folder.glob("*.jsonl")) for record in _records(path))


def _records(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            # The last line of a process that was killed may be cut short.
            if line.endswith("\n"):
                values = json.loads(line)
                yield _KINDS[values.pop("record")](**values)
