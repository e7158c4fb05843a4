"""Asking a child process questions: a line of JSON each way, over its standard input and output."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.figures import MeasurementError
from bench.process import python_child


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs `answer_questions`."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, question: str, **details: Any) -> Any:
        """Its answer. Raises MeasurementError if it ended instead."""
        self.tell(question, **details)
        return self.hear()

    def tell(self, question: str, **details: Any) -> None:
        """Asks, and leaves the answer to `hear`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"question": question, **details}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise MeasurementError("a process that was to be measured has ended")
        return json.loads(line)


@contextmanager
def child(module: str, arguments: Sequence[str] = ()) -> Iterator[Child]:
    """`python -m module`, ready to be asked."""
    with python_child(module, arguments) as process:
        yield Child(process)


async def answer_questions(answers: dict[str, Callable[..., Awaitable[Any]]]) -> None:
    """The child's part: says it is ready, then answers until its input ends."""
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        details = json.loads(line)
        print(json.dumps(await answers[details.pop("question")](**details)), flush=True)
