"""`watchword serve --workers N`: processes on one port, each a replica of its own, and this one that looks after them.

The parent keeps the address and the embedded database; it makes the first administrator and serves no calls. Workers
are started as fresh interpreters, never forked: gRPC and the loop do not survive a fork. Their settings go over a
private socket, because every user of the machine can read a process's arguments.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final, Self

import uvloop
from pydantic import SecretStr

from watchword_server.admin import first_administrator
from watchword_server.background import revive
from watchword_server.observe.logs import configured_logs
from watchword_server.parts import Parts, opened
from watchword_server.settings import Settings
from watchword_server.store.contract import StoreError
from watchword_server.transport.drain import StopRequest
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.reservation import Reservation
from watchword_server.worker import SERVING, STOP, Orders

DEATHS_MAX: Final = 5
DEATHS_WITHIN_SECONDS: Final = 60.0
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 30.0
HURRIED_SECONDS: Final = 5.0
"""How long after a second signal before what is left is killed."""
_PROBE_SECONDS: Final = 5.0
_PARENT_CONNECTIONS: Final = 2
_SCRIPT: Final = "from watchword_server.cli import worker; worker()"

_log = logging.getLogger("watchword")


class WorkersError(Exception):
    """The workers do not start, or do not stay. The text says what to do."""


def run_workers(settings: Settings, *, ready: Callable[[ListenAddress], None]) -> None:
    """Runs until SIGTERM or SIGINT; `ready` is called when all workers serve.

    Raises what `opened` raises, ListenError, and WorkersError.
    """
    with configured_logs(settings):
        uvloop.run(_parent(settings, ready))


async def _parent(settings: Settings, ready: Callable[[ListenAddress], None]) -> None:
    for warning in settings.warnings:
        _log.warning(warning)
    stop = StopRequest()
    own = settings.model_copy(update={"pool_size_max": _PARENT_CONNECTIONS})
    with stop.on_signals(), Reservation(settings.listen_address) as reservation:
        async with opened(own) as parts:
            if settings.embedded:
                await first_administrator(parts)
            watching = asyncio.create_task(_keep_database(parts))

            def all_serve() -> None:
                target = reservation.address.target
                _log.info("serving on %s (%s) by %d workers", target, settings.transport_chosen, settings.workers)
                ready(reservation.address)

            try:
                await _Supervision(_orders(settings, parts, reservation.address), stop, all_serve).run()
            finally:
                watching.cancel()


def _orders(settings: Settings, parts: Parts, address: ListenAddress) -> list[Orders]:
    """What differs between the workers: one is told where its metrics go. All get the database and the keyring that the
    parent has opened."""
    metrics = settings.metrics_address
    shared = {
        "workers": 1,
        "listen": address.target,
        "transport": settings.transport_chosen,
        "database_url": settings.database_url if parts.embedded is None else SecretStr(parts.embedded.dsn),
        "keyring": SecretStr(parts.keyring.dump()),
        "warnings": (),
    }
    orders = []
    for index in range(settings.workers):
        place = "" if metrics is None else metrics.at_port(metrics.port + index if metrics.port else 0).target
        told = settings.model_copy(update={**shared, "metrics_listen": place})
        orders.append(Orders(index + 1, told))
    return orders


async def _keep_database(parts: Parts) -> None:
    """Starts the embedded database again if it dies: workers know it by its address only."""
    while parts.embedded is not None:
        await asyncio.sleep(_PROBE_SECONDS)
        try:
            await parts.database.ping()
        except StoreError:
            await revive(parts.embedded)


class _Supervision:
    """Starts every worker, starts those again that die, and passes on what it is told to stop."""

    def __init__(self, orders: Sequence[Orders], stop: StopRequest, all_serve: Callable[[], None]) -> None:
        self._orders = orders
        self._stop = stop
        self._all_serve = all_serve
        self._served: set[int] = set()
        self._running: dict[int, _Process] = {}
        self._deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self._failure = ""
        self._passed_on = 0

    async def run(self) -> None:
        """Until every worker has ended because that was asked for. Raises WorkersError."""
        passing_on = asyncio.create_task(self._pass_on())
        try:
            await asyncio.gather(*(self._keep(one) for one in self._orders))
        finally:
            passing_on.cancel()
            for process in self._running.values():
                process.close()
        if self._failure:
            raise WorkersError(self._failure)
        _log.info("stopped, all workers")

    async def _keep(self, orders: Orders) -> None:
        number, failures = orders.number, 0
        for attempt in count():
            if self._stop.requested.is_set():
                return
            process = self._running[number] = await _Process.start(orders)
            # What was passed on while this one started: each request once, because two are a hurry.
            for _ in range(self._passed_on):
                process.ask_to_stop()
            if serves := await process.serves():
                failures = 0
                self._serves(number, process, again=attempt > 0)
            code = await process.ended()
            del self._running[number]
            if self._stop.requested.is_set():
                return
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            _log.error("worker %d (process %d) ended: %s", number, process.pid, how)
            self._give_up_if_hopeless(number, served=serves)
            await self._pause(min(RESTART_SECONDS_MAX, RESTART_SECONDS_MIN * 4**failures))
            failures += 1

    def _serves(self, number: int, process: _Process, *, again: bool) -> None:
        _log.info("worker %d serves: process %d", number, process.pid)
        self._served.add(number)
        if not again and len(self._served) == len(self._orders):
            self._all_serve()

    def _give_up_if_hopeless(self, number: int, *, served: bool) -> None:
        """A worker that cannot begin ends a start, but no server whose other workers serve, say while the database is
        away: that one is tried again. Workers that serve and die, again and again, end it."""
        if number not in self._served:
            self._failure = f"worker {number} could not start: what it wrote above says why"
            self._stop()
            return
        if not served:
            return
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS_MAX and now - self._deaths[0] < DEATHS_WITHIN_SECONDS:
            self._failure = f"{DEATHS_MAX} workers died within {DEATHS_WITHIN_SECONDS:g} s: the log above says how"
            self._stop()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.requested.wait(), seconds)

    async def _pass_on(self) -> None:
        for asked in (self._stop.requested, self._stop.hurried):
            await asked.wait()
            self._passed_on += 1
            for process in self._running.values():
                process.ask_to_stop()
        await asyncio.sleep(HURRIED_SECONDS)
        for number, process in self._running.items():
            _log.warning("worker %d does not end: killed", number)
            process.kill()


@dataclass(frozen=True, slots=True)
class _Process:
    """A worker's process, and this end of its standard input."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, orders: Orders) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                # Not from the working folder, whatever lies there.
                *(sys.executable, "-P", "-c", _SCRIPT),
                stdin=theirs.fileno(),
                # Ctrl-C on a terminal is for the parent, which asks each to drain.
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(orders.line())
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def serves(self) -> bool:
        """Waits until it serves; False if it ends before."""
        with suppress(ConnectionError):
            return await self.reader.readline() == SERVING
        return False

    async def ended(self) -> int:
        code = await self.process.wait()
        self.close()
        return code

    def ask_to_stop(self) -> None:
        self.writer.write(STOP)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """To a worker that runs, this is the end of its parent."""
        self.writer.close()
