"""A token that renews itself after a fork: the child begins afresh, and the parent notices nothing."""

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
    ["gives_what_is_in_the_file_and_renews_nothing", "has_not_its_parents_lock", "does_not_miss_one_that_is_gone"],
)
def test_after_a_fork_the_child(child: str) -> None:
    program = [sys.executable, "-m", "tests.client.forked_renewer", child]
    result = subprocess.run(program, cwd=ROOT, timeout=SECONDS_MAX, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
