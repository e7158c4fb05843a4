"""Whether a run tested anything, and whether the fleet recovered: caches that never answer revoke nothing wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tests.history.checker import Findings
from tests.history.events import History, Status


def missing(history: History, findings: Findings, *, quiet_since: float) -> Iterator[str]:
    """What a sound run would show and this one does not. `quiet_since`: when the last fault was over and healed."""
    if findings.denied_after_complete == 0:
        yield "no revoked token was presented after its revocation was COMPLETE"
    if not any(one.kind == "message" and one.outcome == "accept" for one in history.decisions):
        yield "no message passed on a stream"
    if not any(one.outcome in ("complete", "pending") for one in history.rotates):
        yield "no token was rotated"
    if not any(one.by == "narrow" and one.outcome == "complete" for one in history.revokes):
        yield "no token was narrowed"
    if not any(one.tied for one in history.issues) or not any(one.idle_seconds for one in history.issues):
        yield "no token was tied to another, or no session was issued"
    for verifier in sorted({one.verifier for one in history.statuses}):
        statuses = [one for one in history.statuses if one.verifier == verifier]
        if hits_between(statuses, 0, quiet_since) == 0:
            yield f"{verifier} accepted nothing from its cache while there were faults"
        if hits_between(statuses, quiet_since, float("inf")) == 0:
            yield f"{verifier} accepted nothing from its cache after the faults"
    late = [one for one in history.revokes if one.waits and one.invoked > quiet_since and one.outcome != "refused"]
    if not any(one.outcome == "complete" for one in late):
        yield "no revocation was COMPLETE after the faults"
    yield from (
        f"a revocation after the faults was {one.outcome} ({one.code})" for one in late if one.outcome != "complete"
    )


def hits_between(statuses: list[Status], begin: float, end: float) -> int:
    """How many checks a verifier answered from its cache; a process that was started anew counts from 0 again."""
    within = sorted((one for one in statuses if begin <= one.at <= end), key=lambda one: one.at)
    return sum(
        after.hits - before.hits if after.hits >= before.hits else after.hits for before, after in pairwise(within)
    )
