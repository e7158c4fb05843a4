"""Watchword as its users start it: `watchword serve`, a data folder, the embedded PostgreSQL, metrics on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.cpu import tree_cpu_ns
from bench.echo import Transport
from bench.figures import MeasurementError
from bench.load import Target
from bench.postgres import Postgres, find_postgres
from bench.process import free_port, stop
from watchword_server.data_folder import KEYRING_FILE

VERDICTS: Final = "watchword_verdicts"
"""The server's counter of judged tokens by `reason`, without the suffix `_total`."""
_START_SECONDS_MAX: Final = 60
_LOG_LINES_SHOWN: Final = 30


@dataclass(frozen=True, slots=True)
class Authority:
    """A running Watchword."""

    pid: int
    port: int
    metrics_port: int
    data_dir: Path

    def target(self, method: str) -> Target:
        return Target(self.port, f"/watchword.v1.TokenService/{method}")

    @property
    def postgres(self) -> Postgres:
        return find_postgres(self.data_dir / "postgres")

    def admin_token(self) -> str:
        return (self.data_dir / "admin-token").read_text().strip()

    def cpu_ns(self) -> int:
        """The server's own CPU; PostgreSQL is not in it, whoever's child it is."""
        return tree_cpu_ns(self.pid, without=self.postgres.pid)

    def verdicts(self) -> dict[str, int]:
        """How many tokens the server has judged since it began, by reason."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        counts: dict[str, int] = {}
        for family in text_string_to_metric_families(text):
            if family.name == VERDICTS:
                for sample in family.samples:
                    if sample.name == VERDICTS + "_total":
                        reason = sample.labels["reason"].lower()
                        counts[reason] = counts.get(reason, 0) + int(sample.value)
        return counts


def require_only_active(before: dict[str, int], after: dict[str, int], expected: int) -> None:
    """Raises MeasurementError unless the server judged exactly `expected` tokens, and all of them active.

    This is what makes a figure one of successful checks: h2load takes a denial for a success.
    """
    judged = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    judged = {reason: count for reason, count in judged.items() if count}
    if judged != {"active": expected}:
        raise MeasurementError(f"sent {expected} good tokens, and the server judged {judged or 'none'}")


def _environment(transport: Transport, port: int, metrics_port: int, database: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")}
    return inherited | {
        "WATCHWORD_TRANSPORT": transport,
        "WATCHWORD_LISTEN": f"127.0.0.1:{port}",
        "WATCHWORD_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        # What is measured is what the server can do, not what it lets one caller do.
        "WATCHWORD_ISSUES_PER_SECOND": "0",
        "WATCHWORD_FAILED_VALIDATIONS_PER_SECOND": "0",
        **database,
    }


def _serving(metrics_port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5):
        return True
    return False


def _wait_until_serving(process: subprocess.Popen[str], authority: Authority, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS_MAX
    while not (_serving(authority.metrics_port) and authority.target("Validate").accepts()):
        if process.poll() is not None or time.monotonic() > end:
            tail = "\n".join(log.read_text().splitlines()[-_LOG_LINES_SHOWN:])
            raise MeasurementError(f"watchword serve did not come up:\n{tail}")
        time.sleep(0.1)


@contextmanager
def serving(
    data_dir: Path, transport: Transport, *, usage_interval_seconds: float | None = None
) -> Iterator[Authority]:
    """A server on an existing or new data folder, ended with its PostgreSQL."""
    settings = {"WATCHWORD_DATA_DIR": str(data_dir)}
    if usage_interval_seconds is not None:
        settings["WATCHWORD_USAGE_INTERVAL_SECONDS"] = str(usage_interval_seconds)
    try:
        with _server(data_dir, transport, settings) as authority:
            yield authority
    finally:
        _stop_postgres(data_dir)


@contextmanager
def serving_beside(first: Authority, transport: Transport) -> Iterator[Authority]:
    """Another server on the database of one that runs."""
    database = {
        "WATCHWORD_DATABASE_URL": first.postgres.watchword_dsn(),
        "WATCHWORD_KEYRING_FILE": str(first.data_dir / KEYRING_FILE),
    }
    with _server(first.data_dir, transport, database) as authority:
        yield authority


@contextmanager
def _server(data_dir: Path, transport: Transport, database: Mapping[str, str]) -> Iterator[Authority]:
    port, metrics_port = free_port(), free_port()
    log = data_dir.with_suffix(".log")
    command = [str(Path(sys.executable).parent / "watchword"), "serve"]
    with log.open("a") as sink:
        process = subprocess.Popen(
            command,
            env=_environment(transport, port, metrics_port, database),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            text=True,
        )
    authority = Authority(process.pid, port, metrics_port, data_dir)
    try:
        _wait_until_serving(process, authority, log)
        yield authority
    finally:
        stop(process)


def _stop_postgres(data_dir: Path) -> None:
    # Only the postmaster of this very folder, and only if the server left it behind.
    with suppress(MeasurementError, psutil.NoSuchProcess):
        postmaster = psutil.Process(find_postgres(data_dir / "postgres").pid)
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait(30)


@contextmanager
def data_folder() -> Iterator[Path]:
    """A new folder with a short path: that of a Unix socket has at most 107 bytes."""
    data_dir = Path(mkdtemp(prefix="ww"))
    try:
        yield data_dir
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)
        data_dir.with_suffix(".log").unlink(missing_ok=True)
