"""`python -m tests.fuzz TARGET [--seconds N]`: a target under atheris, guided by what it covers, from its seeds on.

What it finds is kept in `build/fuzz/TARGET`; a mistake that was mended goes into seeds.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["watchword", "watchword_server"]):
    from tests.fuzz import targets
    from tests.fuzz.seeds import SEEDS


def main() -> None:
    """Runs until something is found, or its time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(targets.TARGETS))
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long (0: never)")
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many inputs (-1: never)")
    parser.add_argument("--defect", action="store_true", help="with a mistake put in that has to be found")
    given = parser.parse_args()
    if given.defect:
        # Not below a name but behind anything that begins with it: `a.*` covers `a-b`.
        setattr(targets, "covers", lambda held, wanted: wanted.startswith(held.removesuffix("*").removesuffix(".")))  # noqa: B010
    target = targets.TARGETS[given.target]
    kept = Path("build/fuzz") / given.target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wwf") as seeds:
        for at, seed in enumerate(SEEDS[given.target]):
            (Path(seeds) / str(at)).write_bytes(seed)
        corpus = [seeds] if given.runs >= 0 else [str(kept), seeds]
        options = [f"-max_total_time={given.seconds}", f"-runs={given.runs}", f"-artifact_prefix={kept}/"]
        atheris.Setup([sys.argv[0], *options, "-max_len=256", "-print_final_stats=1", *corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
