"""Every seed of every fuzz target as an ordinary test, and random bytes near them."""

from __future__ import annotations

import random
import subprocess
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

_MUTATIONS = 200


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_seeds_hold(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_lies_near_the_seeds_holds(name: str) -> None:
    """One byte changed, taken away or put in, or two seeds joined: where a fuzzer looks first. The same ones always."""
    drawn = random.Random(name)
    for seed in SEEDS[name]:
        for _ in range(_MUTATIONS):
            at = drawn.randrange(len(seed) + 1)
            other = drawn.choice(SEEDS[name])
            byte = bytes([drawn.randrange(256)])
            TARGETS[name](
                drawn.choice(
                    (seed[:at] + byte + seed[at + 1 :], seed[:at] + seed[at + 1 :], seed[:at] + byte + seed[at:])
                )
            )
            TARGETS[name](seed[:at] + other[drawn.randrange(len(other) + 1) :])


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.binary(max_size=100))
def test_any_bytes_hold(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has wheels for Linux on x86-64 only")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_fuzzer_runs(name: str) -> None:
    """Shortly, so that `make fuzz` is known to work: it counts its runs, and more than the seeds'."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--runs", "500"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Done 500 runs" in ended.stderr


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has wheels for Linux on x86-64 only")
def test_the_fuzzer_finds_a_defect() -> None:
    """A target that has never failed proves nothing: with a scope that covers too much, it fails within seconds."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "scope", "--runs", "200000", "--defect"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode != 0
    assert "AssertionError" in ended.stdout + ended.stderr
