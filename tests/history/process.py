"""A program of ours in a process of its own, which obeys JSON lines and answers each with one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]
END_SECONDS_MAX: Final = 30


class Program:
    """`python -m module`, its configuration as the first line of its input. Thread-safe."""

    def __init__(self, module: str, configuration: Mapping[str, Any], errors: Path) -> None:
        self.module = module
        self.configuration = configuration
        self._errors = errors
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the process as it is now."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> dict[str, Any]:
        """Starts it, perhaps anew; what it says first."""
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self.tell(self.configuration)

    def tell(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a command and waits for its answer. Raises AssertionError if it has ended."""
        with self._lock:
            given, answers = self._pipes()
            try:
                given.write(json.dumps(dict(command)) + "\n")
                given.flush()
                line = answers.readline()
            except BrokenPipeError:
                line = ""
        if not line:
            raise AssertionError(f"{self.module} ended; see {self._errors}:\n{self._errors.read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def stop(self) -> None:
        """Ends it by ending its input; kills it if it does not heed that."""
        if self._process is None:
            return
        given, _ = self._pipes()
        with suppress(BrokenPipeError):
            given.close()
        try:
            self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._ended()

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(END_SECONDS_MAX)
        for pipe in self._pipes():
            with suppress(BrokenPipeError):
                pipe.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it, the parent first: stopped in this order, it cannot replace what is stopped."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
