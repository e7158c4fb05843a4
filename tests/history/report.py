"""What a run showed, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.history.run import Outcome

VIOLATIONS_SHOWN_MAX = 20


def lines(outcome: Outcome) -> Iterator[str]:
    """Counts, latencies, faults, and what is wrong."""
    history, findings = outcome.history, outcome.findings
    decisions = Counter((one.kind, one.outcome) for one in history.decisions)
    for (kind, verdict), count in sorted(decisions.items()):
        yield f"  {count:9,} decisions {kind:8} {verdict}"
    yield f"  {findings.denied_after_complete:9,} of them denied what was revoked before they began"
    yield f"  {sum(one.outcome == 'acknowledged' for one in history.issues):9,} tokens issued"
    rotates = Counter(one.outcome for one in history.rotates)
    yield from (f"  {count:9,} rotations {name}" for name, count in sorted(rotates.items()))
    ends = Counter(one.outcome if one.waits else f"{one.outcome}, not waited for" for one in history.revokes)
    yield from (f"  {count:9,} revocations {name}" for name, count in sorted(ends.items()))
    took = sorted(one.returned - one.invoked for one in history.revokes if one.waits and one.outcome == "complete")
    if took:
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        yield f"  COMPLETE after {p50 * 1000:.0f} ms (p50), {p99 * 1000:.0f} ms (p99), {took[-1] * 1000:.0f} ms (most)"
    yield f"  {len(findings.late)} later than the bound by what this machine may be to blame for"
    yield "  faults: " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.faults.items()))
    yield f"  violations: {len(findings.violations)}"
    for violation in findings.violations[:VIOLATIONS_SHOWN_MAX]:
        yield f"    {violation.rule}: {violation.record} ({violation.against})"
    yield from (f"  untested or not recovered: {one}" for one in outcome.missing)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of values in order."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
