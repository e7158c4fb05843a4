"""Child processes that say when they are ready, and are ended by their own id."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from bench.figures import MeasurementError

_READY_SECONDS_MAX: Final = 20
_STOP_SECONDS_MAX: Final = 30


def free_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, a bounded wait, SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def python_child(module: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """`python -m module`, once it has printed its first line, which is `ready`."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            readable, _, _ = select.select([process.stdout], [], [], _READY_SECONDS_MAX)
            if not readable or process.stdout.readline() != "ready\n":
                raise MeasurementError(f"{module} did not start")
            yield process
        finally:
            stop(process)
