"""The callers, all in one process: they issue, check, talk, rotate and revoke, and record what they are told.

python -m tests.history.callers, then a JSON line with the fields of Configuration; any second line stops them
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc

from tests.history.events import Decision, Lag, Log, now
from tests.history.lives import Held, Lives, bearer
from tests.history.pause import pause
from tests.history.verifier_process import TALK, UNARY
from tests.history.workload import Check, checks, families
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

CHECKERS_COUNT: Final = 2
STREAMS_COUNT: Final = 2
FAMILIES_COUNT: Final = 4
LEFT_ALONE_MAX: Final = 3
LAG_PERIOD_SECONDS: Final = 0.05
# Gone servers are tried again soon: they come back under the same address.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
DENIALS: Final = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Where everything is."""

    seed: int
    lease_seconds: float
    verifiers: Mapping[str, str]
    replicas: tuple[str, ...]
    token_file: str
    log_file: str


class Callers:
    """All of them, on one event loop."""

    def __init__(self, configuration: Configuration, log: Log) -> None:
        self._configuration = configuration
        self._log = log
        self._admin = Held("", Path(configuration.token_file).read_text("ascii").strip())
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until told to stop, and lets what is under way come to its end."""
        async with self._channels() as (verifiers, replicas):
            work: list[Coroutine[Any, Any, None]] = [self._feel_lag()]
            for name, channel in verifiers.items():
                work += [self._checks(name, channel, f"{name}-{one}") for one in range(CHECKERS_COUNT)]
                work += [self._streams(name, channel, f"{name}-stream-{one}") for one in range(STREAMS_COUNT)]
            self._lives = Lives(
                self._admin,
                self._log,
                partial(self._check_everywhere, verifiers),
                lease_seconds=self._configuration.lease_seconds,
            )
            work += [self._families(lane, replicas) for lane in range(FAMILIES_COUNT)]
            async with asyncio.TaskGroup() as group:
                for one in work:
                    group.create_task(one)
                await stop.wait()
                self._stopping = True

    @asynccontextmanager
    async def _channels(self) -> AsyncIterator[tuple[dict[str, grpc.aio.Channel], list[Any]]]:
        verifiers = {
            name: grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            for name, address in self._configuration.verifiers.items()
        }
        replicas = [
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in self._configuration.replicas
        ]
        try:
            yield verifiers, [TokenServiceStub(channel) for channel in replicas]
        finally:
            for channel in (*verifiers.values(), *replicas):
                await channel.close()

    async def _feel_lag(self) -> None:
        while not self._stopping:
            due = now() + LAG_PERIOD_SECONDS
            await pause(LAG_PERIOD_SECONDS)
            if (late := now() - due) > LAG_PERIOD_SECONDS:
                self._log.write(Lag(now(), late))

    # ---- whoever is checked ------------------------------------------------------------------------------------------

    def _pick(self, check: Check) -> Held | None:
        pool = self._lives.ended if check.revoked and self._lives.ended else self._lives.live
        return pool[int(check.pick * len(pool))] if pool else None

    async def _checks(self, verifier: str, channel: grpc.aio.Channel, caller: str) -> None:
        for check in checks(self._configuration.seed, caller, lease_seconds=self._configuration.lease_seconds):
            if self._stopping:
                return
            if (held := self._pick(check)) is not None:
                await self._check(verifier, channel, held, check.patience_seconds)
            await pause(check.pause_seconds)

    async def _check(self, verifier: str, channel: grpc.aio.Channel, held: Held, patience_seconds: float) -> None:
        invoked = now()
        code = grpc.StatusCode.OK
        try:
            call: Any = channel.unary_unary(UNARY)
            await call(b"", metadata=bearer(held), timeout=patience_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self._decided(held, "unary", verifier, invoked, code)

    async def _streams(self, verifier: str, channel: grpc.aio.Channel, caller: str) -> None:
        for check in checks(self._configuration.seed, caller, lease_seconds=self._configuration.lease_seconds):
            if self._stopping:
                return
            if (held := self._pick(check)) is not None:
                await self._talk(verifier, channel, held, check)
            await pause(check.pause_seconds)

    async def _talk(self, verifier: str, channel: grpc.aio.Channel, held: Held, check: Check) -> None:
        """One message at a time, until the stream is ended or enough was said."""
        call: Any = channel.stream_stream(TALK)(metadata=bearer(held))
        for _ in range(check.messages_count):
            invoked = now()
            code = grpc.StatusCode.OK
            try:
                async with asyncio.timeout(check.patience_seconds):
                    await call.write(b"x")
                    if await call.read() is grpc.aio.EOF:
                        code = await call.code()
            except TimeoutError:
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            except grpc.aio.AioRpcError as error:
                code = error.code()
            except asyncio.InvalidStateError:
                # Ended before it was written to.
                code = await call.code()
            self._decided(held, "message", verifier, invoked, code)
            if code is not grpc.StatusCode.OK or self._stopping:
                break
            await pause(check.pause_seconds)
        call.cancel()

    def _decided(self, held: Held, kind: str, verifier: str, invoked: float, code: grpc.StatusCode) -> None:
        outcome = "accept" if code is grpc.StatusCode.OK else "inactive" if code in DENIALS else "unavailable"
        self._log.write(Decision(held.token_id, kind, verifier, invoked, now(), outcome, code.name))

    # ---- whoever issues and revokes ----------------------------------------------------------------------------------

    async def _families(self, lane: int, replicas: list[Any]) -> None:
        configuration = self._configuration
        planned = families(configuration.seed, lane, lease_seconds=configuration.lease_seconds)
        # Sessions that are left alone take long, and hold nobody up.
        left_alone: set[asyncio.Task[None]] = set()
        for number, family in enumerate(planned):
            if self._stopping:
                break
            life = self._lives.one(family, f"family/{lane}/{number}", replicas)
            if family.way == "idle":
                if len(left_alone) < LEFT_ALONE_MAX:
                    task = asyncio.create_task(life)
                    left_alone.add(task)
                    task.add_done_callback(left_alone.discard)
                else:
                    life.close()
            else:
                await life
        for task in left_alone:
            task.cancel()
        await asyncio.gather(*left_alone, return_exceptions=True)

    async def _check_everywhere(
        self, verifiers: Mapping[str, grpc.aio.Channel], tokens: list[Held], later_seconds: float
    ) -> None:
        await pause(later_seconds)
        patience_seconds = self._configuration.lease_seconds * 0.75
        await asyncio.gather(
            *(
                self._check(name, channel, held, patience_seconds)
                for name, channel in verifiers.items()
                for held in tokens
            )
        )


async def main() -> None:
    """Works until standard input says so."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    configuration = Configuration(**json.loads(await lines.readline()))
    sys.stdout.write(json.dumps({"seed": asdict(configuration)["seed"]}) + "\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    with Log(Path(configuration.log_file)) as log:
        async with asyncio.TaskGroup() as group:
            group.create_task(Callers(configuration, log).run(stop))
            await lines.readline()
            stop.set()
    sys.stdout.write("{}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
