"""h2load as a gRPC load generator: C, so that it leaves the machine to the server.

One h2load process sends one body, so distinct tokens take as many processes. h2load reads no trailers and takes a gRPC
error for a success: whoever calls this must hold the server's own count of answers against `LoadResult.calls`.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.figures import MeasurementError

HOW_TO_GET_H2LOAD: Final = "h2load is missing: it is in Debian's nghttp2-client (apt-get install nghttp2-client)"
_RUN_SECONDS_MAX: Final = 120
_UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_FINISHED: Final = re.compile(r"finished in ([0-9.]+)(s|ms|us),")
_REQUESTS: Final = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded")


@dataclass(frozen=True, slots=True)
class Target:
    """One method of one server."""

    port: int
    method: str
    """`/package.Service/Method`"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.method}"

    def accepts(self) -> bool:
        """Whether anyone listens."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True
        return False


@dataclass(frozen=True, slots=True)
class Caller:
    """What one h2load process sends, over and over."""

    message: bytes = field(repr=False)
    bearer: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoadResult:
    calls: int
    seconds: float
    """From the first connection to the last answer, of the slowest process."""
    latencies_us: Sequence[int] = field(default=(), repr=False)

    @property
    def rate(self) -> float:
        return self.calls / self.seconds


@dataclass(frozen=True, slots=True)
class Timed:
    """One call: when it was sent, in microseconds since 1970, and how long its answer took."""

    sent_us: int
    took_us: int


def require_h2load() -> str:
    """The path of h2load. Raises MeasurementError that says how to get it."""
    path = shutil.which("h2load")
    if path is None:
        raise MeasurementError(HOW_TO_GET_H2LOAD)
    return path


def framed(message: bytes) -> bytes:
    """gRPC's length-prefixed message, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _command(program: str, target: Target, caller: Caller, calls: int, streams: int, body: Path) -> list[str]:
    headers = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {caller.bearer}")
    head = [program, f"--requests={calls}", "--clients=1", f"--max-concurrent-streams={streams}", f"--data={body}"]
    return [*head, *(f"--header={header}" for header in headers), target.url]


def _parse(output: str, calls: int) -> float:
    finished, requests = _FINISHED.search(output), _REQUESTS.search(output)
    if finished is None or requests is None or requests.groups() != (str(calls),) * 3:
        raise MeasurementError(f"h2load did not get {calls} answers:\n{output}")
    return float(finished[1]) * _UNITS[finished[2]]


def run_load(target: Target, callers: Sequence[Caller], *, calls_each: int, streams: int) -> LoadResult:
    """Runs one h2load process with one connection for each caller, all at once, `streams` calls at a time in each.

    Raises MeasurementError unless every call got an HTTP answer.
    """
    with TemporaryDirectory(prefix="load") as folder:
        seconds = _run(target, callers, calls_each, streams, Path(folder), [[] for _ in callers])
    return LoadResult(calls_each * len(callers), seconds)


def run_timed(target: Target, callers: Sequence[Caller], *, calls_each: int, streams: int) -> list[Timed]:
    """The same load, call by call."""
    with TemporaryDirectory(prefix="load") as folder:
        logs = [Path(folder, f"log-{number}") for number in range(len(callers))]
        options = [[f"--log-file={log}"] for log in logs]
        _run(target, callers, calls_each, streams, Path(folder), options)
        calls = [call for log in logs for call in _timed(log)]
    if len(calls) != calls_each * len(callers):
        raise MeasurementError(f"h2load logged {len(calls)} of {calls_each * len(callers)} calls")
    return calls


def _run(
    target: Target,
    callers: Sequence[Caller],
    calls_each: int,
    streams: int,
    folder: Path,
    options: Sequence[Sequence[str]],
) -> float:
    program = require_h2load()
    running: list[subprocess.Popen[str]] = []
    try:
        for number, (caller, more) in enumerate(zip(callers, options, strict=True)):
            body = folder / str(number)
            body.write_bytes(framed(caller.message))
            *command, url = _command(program, target, caller, calls_each, streams, body)
            running.append(
                subprocess.Popen([*command, *more, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
        outputs = [process.communicate(timeout=_RUN_SECONDS_MAX)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return max(_parse(output, calls_each) for output in outputs)


def _timed(log: Path) -> list[Timed]:
    # Three columns: start in microseconds, HTTP status, microseconds.
    columns = (line.split("\t") for line in log.read_text().splitlines())
    return [Timed(int(sent), int(took)) for sent, _, took in columns]


def run_one_at_a_time(target: Target, caller: Caller, *, calls: int) -> LoadResult:
    """One connection, one call at a time, with the time that each took."""
    program = require_h2load()
    with TemporaryDirectory(prefix="load") as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(framed(caller.message))
        command = [*_command(program, target, caller, calls, 1, body)[:-1], f"--log-file={log}", target.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_SECONDS_MAX, check=False)
        seconds = _parse(done.stdout + done.stderr, calls)
        latencies = tuple(call.took_us for call in _timed(log))
    if len(latencies) != calls:
        raise MeasurementError(f"h2load logged {len(latencies)} of {calls} calls")
    return LoadResult(calls, seconds, latencies)
