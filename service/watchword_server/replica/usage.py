"""What verifiers report on their streams about the tokens they admitted from memory.

Nothing of the guarantee depends on it. It comes from a caller that may check tokens and may yet be hostile: whatever is
stored of it is bounded here, and whether the token is real, and meant for that verifier, is asked where it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from watchword.scope import is_scope
from watchword.v1 import verifier_service_pb2 as pb
from watchword_server.replica import refusal
from watchword_server.store.contract import Use

USES_MAX: Final = 1_000
SCOPES_MAX: Final = 64
ADDRESS_CHARACTERS_MAX: Final = 64
COUNT_MAX: Final = 2**40
"""Sums of so many stay below 2**63 for a lifetime."""
AGO_SECONDS_MAX: Final = 30 * 86_400.0
"""Older uses count as so old: every instant has to be one that a database can hold."""
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class UsageReports:
    """How often to ask for reports, and what takes them: the uses, and those that were refused for where they came
    from. `count` is told `received` or `refused` of each report."""

    every_seconds: float
    take: Callable[[Sequence[Use], Sequence[Use]], None]
    count: Callable[[str], None] = lambda result: None


def uses_of(report: pb.UsageReport, service: str) -> tuple[list[Use], list[Use]]:
    """What a report says of admitted uses, and of refused ones. Raises WatchRefusedError."""
    if len(report.uses) > USES_MAX:
        raise refusal.protocol(f"a report has at most {USES_MAX} uses")
    admitted: list[Use] = []
    refused: list[Use] = []
    for use in report.uses:
        ago = use.ago
        if len(use.token_id) != _ID_BYTES:
            raise refusal.protocol(f"a token_id has {_ID_BYTES} bytes")
        if ago.seconds < 0 or ago.nanos < 0:
            raise refusal.protocol("ago is not negative")
        scopes = list(use.scopes)
        if len(scopes) > SCOPES_MAX or not all(map(is_scope, scopes)):
            raise refusal.protocol(f"a use has at most {SCOPES_MAX} scopes, none with a wildcard")
        token_id = UUID(bytes=use.token_id)
        ago_seconds = min(ago.seconds + ago.nanos / 1e9, AGO_SECONDS_MAX)
        if use.use_count:
            count = min(use.use_count, COUNT_MAX)
            admitted.append(Use(token_id, service, count, ago_seconds, _short(use.address), scopes))
        if use.refused_count:
            count = min(use.refused_count, COUNT_MAX)
            refused.append(Use(token_id, service, count, ago_seconds, _short(use.refused_address), ()))
    return admitted, refused


def _short(address: str) -> str:
    """Whether it is an address at all is asked once, when it is stored."""
    return address if len(address) <= ADDRESS_CHARACTERS_MAX else ""
