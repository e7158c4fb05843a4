"""Watchword servers as real processes, and channels to them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Self

import grpc

from watchword.v1 import audit_service_pb2_grpc, token_service_pb2_grpc
from watchword_server import admin
from watchword_server.keyring import Keyring
from watchword_server.settings import load_settings

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
WATCHWORD = (sys.executable, "-c", "from watchword_server.cli import main; main()")
_SERVING = re.compile(r"serving on ([0-9.]+:\d+) \((\w+)\)")


def keyring_file(folder: Path, keyring: str | None = None) -> Path:
    """A keyring, by default a new one, in a file as private as the server wants it."""
    path = folder / "keyring.json"
    path.touch(mode=0o600)
    path.write_text(keyring or Keyring.generate().dump())
    return path


class ServerProcess:
    """`watchword serve` in a process of its own. Its log is kept and can be waited on."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str], *, command: Sequence[str] = WATCHWORD) -> None:
        self.data_dir = data_dir
        self._command = command
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")},
            "WATCHWORD_DATA_DIR": str(data_dir),
            "WATCHWORD_LISTEN": "127.0.0.1:0",
            "WATCHWORD_METRICS_LISTEN": "127.0.0.1:0",
            "WATCHWORD_LOG_FORMAT": "json",
            **environment,
        }
        self.log: list[str] = []
        self.address = ""
        self.transport = ""
        self._lines: Queue[str | None] = Queue()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Starts it, perhaps again, and waits until it serves."""
        self._lines = Queue()
        self._process = subprocess.Popen(
            [*self._command, "serve"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            match = self.wait_for_log(_SERVING, seconds=START_SECONDS_MAX)
        except AssertionError:
            self.stop()
            raise
        self.address, self.transport = match[1], match[2]
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for_log(self, pattern: re.Pattern[str], *, seconds: float = 30) -> re.Match[str]:
        """Waits for a line of the log that nobody waited for before."""
        try:
            while (line := self._lines.get(timeout=seconds)) is not None:
                if match := pattern.search(line):
                    return match
        except Empty:
            raise AssertionError(f"no line like {pattern.pattern!r} in the log:\n{''.join(self.log)}") from None
        raise AssertionError(f"the server ended:\n{''.join(self.log)}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(STOP_SECONDS_MAX)
        self._reader.join(STOP_SECONDS_MAX)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.wait()

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs the command line beside it."""
        environment = {**self.environment, "WATCHWORD_ADDRESS": self.address}
        return subprocess.run(
            [*WATCHWORD, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def bootstrap(self) -> str:
        """Makes the first administrator of its database; its token. In this process, which has all imported already."""
        settings = load_settings(self.environment)
        with ThreadPoolExecutor(1) as pool:
            # In a thread of its own: the test may have a loop running.
            return pool.submit(asyncio.run, admin.bootstrap(settings)).result().secret

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class Client:
    """Stubs on one channel, with one caller's token."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self.metadata: tuple[tuple[str, str | bytes], ...] = (("authorization", f"Bearer {token}"),)
        self.channel = channel
        self.tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)


@contextmanager
def client(address: str, token: str) -> Iterator[Client]:
    """A client of a plaintext server on this machine."""
    with grpc.insecure_channel(address) as channel:
        yield Client(channel, token)
