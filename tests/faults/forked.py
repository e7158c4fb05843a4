"""Servers that start in a moment: a process that has imported everything forks one whenever it is asked to.

Each is the real server in a process of its own, as `watchword serve` runs it, to be killed. Nothing of gRPC runs in the
process that forks. It reads environments from its standard input, a JSON line each, and answers each with the new
process's id and address; it ends with its input.

    python -m tests.faults.forked
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from watchword_server.app import run
from watchword_server.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


def serve_forked(environment: Mapping[str, str]) -> dict[str, object]:
    """A server with these settings, once it serves."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        # Not a caller of this function any more: nothing that the parent cleans up is this process's to clean.
        try:
            os.close(reading)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run(load_settings(environment), ready=lambda bound: _tell(writing, bound.address.target))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        return {"pid": pid, "address": told.readline().strip()}


def _tell(writing: int, address: str) -> None:
    os.write(writing, address.encode() + b"\n")
    os.close(writing)


def main() -> None:
    """Obeys standard input until its end."""
    # Nobody waits for the dead.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(serve_forked(json.loads(line))) + "\n")
        sys.stdout.flush()


class Forked:
    """The process that forks, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._pids: set[int] = set()

    def serve(self, environment: Mapping[str, str]) -> tuple[int, str]:
        """A new server's process id and address."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dict(environment)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self._pids.add(answer["pid"])
        assert answer["address"], "the server did not start: its log has it"
        return answer["pid"], answer["address"]

    def kill_all(self) -> None:
        """Those that were not killed yet."""
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def forked_servers(log: Path) -> Iterator[Forked]:
    """Forks servers while the block runs; what they log goes to `log`."""
    with (
        log.open("w") as sink,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        forked = Forked(process)
        try:
            yield forked
        finally:
            forked.kill_all()
            process.kill()


if __name__ == "__main__":
    main()
