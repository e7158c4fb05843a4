"""The checker for as long as wanted: `make soak SECONDS=600 SEED=7`.

Prints the seed, what was decided and broken, and what is wrong, if anything: then it exits with 1 and keeps the logs.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.history.fleet import Shape, fleet
from tests.history.plan import drawn
from tests.history.report import lines
from tests.history.run import run

BURST_TOKENS_COUNT = 100_000


def main() -> int:
    """Runs until the time is over; the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="no new round of faults after so long")
    parser.add_argument("--seed", type=int, help="repeats the faults and choices of an earlier run")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of the last replica")
    parser.add_argument("--verifiers", type=int, default=2, help="on each of the two stacks")
    parser.add_argument("--burst", type=int, default=BURST_TOKENS_COUNT, help="tokens in one revocation")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    shape = Shape(
        replicas=tuple(f"r{number}" for number in range(given.replicas)),
        workers=given.workers,
        aio=given.verifiers,
        threads=given.verifiers,
    )
    logs = Path(tempfile.mkdtemp(prefix="watchword-soak-"))
    say(f"seed {seed}, {given.seconds:g} s, logs in {logs}")
    with fleet(shape, logs=logs) as made:
        outcome = run(made, drawn(seed), seed=seed, burst_tokens_count=given.burst, seconds=given.seconds)
    say(*lines(outcome))
    if outcome.findings.violations or outcome.missing:
        say(f"seed {seed}: the logs are kept in {logs}")
        return 1
    shutil.rmtree(logs)
    return 0


def say(*texts: str) -> None:
    """For whoever looks on."""
    sys.stdout.write("\n".join(texts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
