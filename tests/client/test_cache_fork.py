"""A cache after a fork: the child is a verifier of its own and knows nothing; the parent notices nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "child",
    [
        "knows_nothing",
        "can_decide_though_the_lock_was_held",
        "does_not_miss_a_cache_that_is_gone",
        "looks_after_its_streams_in_a_loop_of_its_own",
    ],
)
def test_after_a_fork_the_child(child: str) -> None:
    program = [sys.executable, "-m", "tests.client.forked_cache", child]
    result = subprocess.run(program, cwd=ROOT, timeout=SECONDS_MAX, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
