"""One of several processes that serve the same port. `workers.py` is its parent, and holds the other end of its
standard input: a socket that brings the settings, then a line for each request to stop, and says by its end that the
parent is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import uvloop

from watchword_server.app import serve
from watchword_server.observe.logs import configured_logs
from watchword_server.settings import SECRET_FIELDS, Settings
from watchword_server.transport.drain import StopRequest

SERVING: Final = b"serving\n"
STOP: Final = b"stop\n"

_log = logging.getLogger("watchword")


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told at its start."""

    number: int
    """From 1; it is in each line of its log."""
    settings: Settings

    def line(self) -> bytes:
        """As one line, secrets included: for the private socket to the worker alone."""
        secrets = {name: getattr(self.settings, name) for name in SECRET_FIELDS}
        fields = self.settings.model_dump(mode="json") | {
            name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None
        }
        return json.dumps({"number": self.number, "settings": fields}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Orders:
        told = json.loads(line)
        return cls(told["number"], Settings.model_validate(told["settings"]))


def work() -> None:
    """Serves until told to stop. Raises as `app.run` does."""
    # The parent passes them on once. A terminal and systemd send them to every process, which would hurry the drain.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=0) as channel:
        # Unbuffered: what follows the first line belongs to the loop.
        line = channel.makefile("rb", buffering=0).readline()
        if not line:
            return
        orders = Orders.read(line)
        settings = orders.settings
        _number_log_lines(orders.number)
        with configured_logs(settings):
            uvloop.run(_work(settings, channel))


async def _work(settings: Settings, channel: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    stop = StopRequest()
    listening = asyncio.create_task(_obey(reader, stop))
    try:
        await serve(settings, stop=stop, ready=lambda bound: writer.write(SERVING), share_port=True)
    finally:
        listening.cancel()
        writer.close()


async def _obey(reader: asyncio.StreamReader, stop: StopRequest) -> None:
    with suppress(ConnectionError):
        while await reader.readline() == STOP:
            stop()
    if not stop.requested.is_set():
        _log.warning("the parent process is gone")
        stop()


def _number_log_lines(number: int) -> None:
    plain = logging.getLogRecordFactory()

    def numbered(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = plain(*arguments, **named)
        record.worker = number
        return record

    logging.setLogRecordFactory(numbered)
