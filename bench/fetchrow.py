"""The floor of an idle Validate: one prepared statement that fetches one token's row, one at a time.

Runs as a process of its own, as the server does, and measures as many as each line of its input asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

import asyncpg
import uvloop

from bench.figures import MeasurementError
from bench.postgres import Postgres
from bench.process import python_child

_IDS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Fetcher:
    """A running process of this module."""

    process: subprocess.Popen[str]

    def p50_us(self, count: int) -> float:
        """The median time of `count` fetches, in microseconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise MeasurementError("the fetching process ended")
        return float(line)


@contextmanager
def fetcher(postgres: Postgres, database: str) -> Iterator[Fetcher]:
    arguments = ["--host", postgres.socket_dir, "--port", str(postgres.port), "--database", database]
    with python_child("bench.fetchrow", arguments) as process:
        yield Fetcher(process)


async def _serve(host: str, port: int, database: str) -> None:
    connection = await asyncpg.connect(host=host, port=port, user="postgres", database=database)
    ids = [row["id"] for row in await connection.fetch("select id from tokens limit $1", _IDS_MAX)]
    statement = await connection.prepare("select * from tokens where id = $1")
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        times_ns: list[int] = []
        for number in range(int(line)):
            began = time.perf_counter_ns()
            row = await statement.fetchrow(ids[number % len(ids)])
            times_ns.append(time.perf_counter_ns() - began)
            if row is None:
                raise MeasurementError("a token has gone")
        print(median(times_ns) / 1000, flush=True)
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.host, arguments.port, arguments.database))


if __name__ == "__main__":
    main()
