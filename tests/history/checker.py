"""The checker: what a history may not show. It knows what callers were told and nothing of how caches work.

An operation happened at some moment between its invocation and its return; one without an answer may have happened at
any moment after its invocation, or never. Everything is judged by what must hold whichever moment that was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.history.events import NEVER, Decision, Fault, History, Issue, Record, Revoke, Rotate
from tests.history.fleet_facts import IDLE_SECONDS_MAX

# The database's clock, which decides expiry, is slewed against the monotonic one, and milliseconds are rounded.
EXPIRY_SLACK_SECONDS: Final = 0.25
HONEST: Final = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
RECOVERY_LEASES: Final = 4
RECOVERY_SECONDS: Final = 5.0
"""After a fault ended, the fleet has so many leases and so many seconds until promptness is asked of it again."""
LATE_SECONDS_MAX: Final = 1.0
"""Beyond the bound a Revoke may be so late, and as late as timers were, on a machine with other work: counted apart."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, and the record that shows it."""

    rule: str
    record: Record
    against: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checker has to say of a history."""

    violations: list[Violation]
    late: list[Revoke]
    """Above the bound of a Revoke, by less than the machine may be to blame for."""
    denied_after_complete: int
    """Decisions that could have broken the first rule, and did not: without any, it was not tested."""

    def of(self, rule: str) -> list[Violation]:
        """Those of one rule."""
        return [one for one in self.violations if one.rule == rule]


@dataclass(slots=True)
class _Fate:
    """When a token must be dead, may be dead, and ends by itself."""

    acknowledged: float
    dead: float = NEVER
    dead_by: str = ""
    bounded: float = NEVER
    doubtful: float = NEVER
    expires_first: float = NEVER
    expires_last: float = NEVER
    idle: bool = False
    used: float = 0.0
    """Of a session: when a decision about it last returned."""


def check(history: History, *, lease_seconds: float) -> Findings:
    """Holds a history against the rules."""
    fates = _fates(history)
    violations = [*_decisions(history, fates)]
    late: list[Revoke] = []
    for revoke, excess in _slow(history, lease_seconds):
        if excess <= LATE_SECONDS_MAX + _lag(history, revoke):
            late.append(revoke)
        else:
            violations.append(Violation("slow", revoke, f"{excess:.2f} s above the bound"))
    denied = sum(
        one.outcome == "inactive" and one.token in fates and one.invoked > fates[one.token].dead
        for one in history.decisions
    )
    return Findings(violations, late, denied)


def _fates(history: History) -> dict[str, _Fate]:
    fates = {one.token: _fate(one) for one in history.issues if one.outcome == "acknowledged"}
    for rotate in history.rotates:
        if rotate.outcome != "refused" and rotate.token in fates:
            _shorten(fates[rotate.token], rotate)
    tree = _Tree(history.issues, history.rotates)
    for revoke in history.revokes:
        if revoke.outcome == "refused":
            continue
        # One that was not answered, or only asked for, may take effect on what is issued much later.
        until = NEVER if revoke.outcome == "unknown" else revoke.returned
        for issue in tree.named(revoke, surely=False):
            if issue.invoked < until:
                fate = fates[issue.token]
                fate.doubtful = min(fate.doubtful, revoke.invoked)
        for issue in tree.named(revoke, surely=True):
            if issue.returned < revoke.invoked:
                _end(fates[issue.token], revoke)
    return fates


def _end(fate: _Fate, revoke: Revoke) -> None:
    if revoke.outcome == "complete" and revoke.returned < fate.dead:
        fate.dead, fate.dead_by = revoke.returned, f"ended by {revoke.by}"
    if revoke.outcome == "pending":
        fate.bounded = min(fate.bounded, revoke.returned + revoke.effective_seconds)


def _fate(one: Issue) -> _Fate:
    fate = _Fate(
        one.returned,
        expires_first=one.invoked + one.ttl_seconds - EXPIRY_SLACK_SECONDS,
        expires_last=one.returned + one.ttl_seconds + EXPIRY_SLACK_SECONDS,
        idle=one.idle_seconds > 0,
    )
    if one.idle_seconds:
        # What a killed process had to tell of its use is lost, and a session may end for want of it.
        fate.expires_first = min(fate.expires_first, one.invoked + one.idle_seconds - EXPIRY_SLACK_SECONDS)
    return fate


def _shorten(fate: _Fate, rotate: Rotate) -> None:
    """A rotated token ends with its grace. One that was not told to all may be accepted until its answer's bound."""
    fate.expires_first = min(fate.expires_first, rotate.invoked + rotate.grace_seconds - EXPIRY_SLACK_SECONDS)
    if rotate.outcome != "unknown":
        left = rotate.grace_seconds
        if rotate.outcome == "pending":
            left = max(left, rotate.effective_seconds)
        fate.expires_last = min(fate.expires_last, rotate.returned + left + EXPIRY_SLACK_SECONDS)


class _Tree:
    """Which acknowledged tokens a Revoke names."""

    def __init__(self, issues: Iterable[Issue], rotates: Iterable[Rotate]) -> None:
        self._by_id: dict[str, Issue] = {}
        self._by_subject: dict[str, list[Issue]] = defaultdict(list)
        self._by_issuer: dict[str, list[Issue]] = defaultdict(list)
        for one in issues:
            if one.outcome == "acknowledged":
                self._by_id[one.token] = one
                self._by_subject[one.subject].append(one)
                self._by_issuer[one.issued_by].append(one)
        self._successors: dict[str, list[Issue]] = defaultdict(list)
        self._succeeded: set[str] = set()
        """Those that have, or may have, a successor."""
        first: dict[str, str] = {}
        for rotate in rotates:
            if rotate.outcome != "refused":
                self._succeeded.add(rotate.token)
            if rotate.successor in self._by_id:
                self._successors[rotate.token].append(self._by_id[rotate.successor])
                first[rotate.successor] = first.get(rotate.token, rotate.token)
        self._lineages = first
        self._tied: dict[str, list[Issue]] = defaultdict(list)
        for one in self._by_id.values():
            if one.tied:
                self._tied[self._lineage(one.issued_by)].append(one)

    def _lineage(self, token: str) -> str:
        return self._lineages.get(token, token)

    def named(self, revoke: Revoke, *, surely: bool) -> Iterator[Issue]:
        """Each once: those that it ends in any case, or those that it may end.

        What is tied ends with the latest of its lineage. Where nobody was told whether a token has a successor, that
        may be it, or not.
        """
        if revoke.by == "subject":
            roots = self._by_subject[revoke.value]
        elif revoke.by == "issued_by":
            roots = self._by_issuer[revoke.value]
        else:
            roots = [self._by_id[revoke.value]] if revoke.value in self._by_id else []
        waiting, seen = list(roots), set[str]()
        while waiting:
            one = waiting.pop()
            if one.token in seen:
                continue
            seen.add(one.token)
            yield one
            if revoke.by == "narrow":
                continue
            if revoke.cascade:
                waiting += self._by_issuer[one.token]
                waiting += self._successors[one.token]
            if not (surely and one.token in self._succeeded):
                waiting += self._tied[self._lineage(one.token)]


def _decisions(history: History, fates: dict[str, _Fate]) -> Iterator[Violation]:
    judges = {"accept": _accepted, "inactive": _denied, "unavailable": _not_judged}
    for one in sorted(history.decisions, key=lambda decision: decision.invoked):
        fate = fates.get(one.token)
        violation = None if fate is None else judges[one.outcome](one, fate)
        if violation is not None:
            yield violation
        if fate is not None and one.outcome != "inactive":
            fate.used = max(fate.used, one.returned)


def _accepted(one: Decision, fate: _Fate) -> Violation | None:
    if one.invoked > fate.dead:
        return Violation("revoked", one, fate.dead_by)
    if one.invoked > fate.bounded:
        return Violation("bounded", one, "effective_in has passed")
    if one.invoked > fate.expires_last:
        return Violation("expired", one, "its life is over")
    if fate.idle and one.invoked > max(fate.acknowledged, fate.used) + IDLE_SECONDS_MAX:
        return Violation("idle", one, "nobody used the session for longer than it may be idle")
    return None


def _denied(one: Decision, fate: _Fate) -> Violation | None:
    if fate.acknowledged < one.invoked and one.returned < min(fate.doubtful, fate.expires_first):
        return Violation("alive", one, "acknowledged, not expired, and no revoke of it was begun")
    return None


def _not_judged(one: Decision, fate: _Fate) -> Violation | None:
    # Of a stream that ends before its client wrote, grpc.aio's client makes INTERNAL, whatever was said.
    if one.kind == "unary" and one.code not in HONEST:
        return Violation("unforeseen", one, f"{one.code} is no way to say that nothing was judged")
    return None


def _slow(history: History, lease_seconds: float) -> Iterator[tuple[Revoke, float]]:
    """Revokes that should have been COMPLETE in time, with how many seconds they were above the bound."""
    bound = lease_seconds * 1.05 + 1.0
    grace = lease_seconds * RECOVERY_LEASES + RECOVERY_SECONDS
    exempting = [fault for fault in history.faults if not fault.verifiers_only]
    for revoke in history.revokes:
        if not revoke.waits or revoke.outcome == "refused" or _overlapped(revoke, exempting, grace):
            continue
        took = revoke.returned - revoke.invoked
        if took > bound or revoke.outcome != "complete":
            yield revoke, took - bound if revoke.outcome == "complete" else NEVER


def _overlapped(revoke: Revoke, faults: Iterable[Fault], grace: float) -> bool:
    return any(fault.began <= revoke.returned and revoke.invoked <= fault.ended + grace for fault in faults)


def _lag(history: History, revoke: Revoke) -> float:
    return sum(lag.seconds for lag in history.lags if revoke.invoked <= lag.at <= revoke.returned + lag.seconds)
