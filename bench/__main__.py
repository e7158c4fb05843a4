"""`python -m bench`: measures the figures, prints them as a table and writes build/bench.json.

Exits 0 when every row asked for was measured, whether or not it reached its goal, and 1 when one could not be.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import grpc
import psutil
import psycopg

from bench import report
from bench.figures import Figure, MeasurementError
from bench.load import require_h2load
from bench.rows import ROWS, Row
from bench.stage import Plan, Stage

BROKEN: Final = (MeasurementError, OSError, grpc.RpcError, psycopg.Error, psutil.Error, subprocess.SubprocessError)
"""What a server that died under the load looks like from here: no figure for this row, and on with the next."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    names = [name for row in ROWS for name in row.names]
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures what Watchword's calls cost.")
    parser.add_argument("--only", action="append", choices=names, help="only this figure; may be given again")
    parser.add_argument("--rounds", type=int, default=Plan().rounds, help="rounds of each side, interleaved")
    parser.add_argument("--seconds", type=float, default=Plan().seconds, help="about how long one side's round takes")
    parser.add_argument("--output", type=Path, default=Path("build", "bench.json"))
    return parser.parse_args(argv)


def _wanted(only: Sequence[str] | None) -> list[Row]:
    return [row for row in ROWS if only is None or set(only) & set(row.names)]


def measure(rows: Sequence[Row], plan: Plan) -> tuple[list[Figure], dict[str, str]]:
    """The figures of all rows that could be measured, and why the others could not."""
    figures: list[Figure] = []
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        stage = Stage(plan, stack)
        for row in rows:
            try:
                require_h2load()
                measured = row.measure(stage)
            except BROKEN as error:
                names = ", ".join(row.names)
                failures[names] = str(error) or type(error).__name__
                print(f"{names}: not measured: {failures[names]}", file=sys.stderr, flush=True)
                continue
            figures += measured
            for figure in measured:
                print(report.line(figure), flush=True)
    return figures, failures


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    plan = Plan(rounds=arguments.rounds, seconds=arguments.seconds)
    print(report.heading(), flush=True)
    figures, failures = measure(_wanted(arguments.only), plan)
    report.write_json(figures, arguments.output)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
