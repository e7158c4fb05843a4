"""A service with guarded methods in a process of its own: what every decision was, as the verifier itself saw it.

    python -m tests.history.verifier_process, then a JSON line with the fields of Configuration

answers with its port. `{"jump": 3600}` sets its wall clock an hour ahead, and it says whether it is attached. It ends
with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from tests.history import caching
from tests.history.events import Decision, Log, Status, now
from tests.history.fleet_facts import SCOPE
from tests.history.pause import pause
from watchword import Policy, aio, sync
from watchword.lease import SystemClock
from watchword.token import MalformedTokenError, parse_token
from watchword.verifier.verdict import Active, Verdict

SERVICE: Final = "history.Guarded"
UNARY: Final = f"/{SERVICE}/Unary"
TALK: Final = f"/{SERVICE}/Talk"
POLICY: Final = Policy(table={UNARY: [SCOPE], TALK: [SCOPE]})
STATUS_PERIOD_SECONDS: Final = 0.25
THREADS_COUNT: Final = 32
KEEPALIVE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one verifier is."""

    name: str
    stack: str
    """`aio` or `threads`."""
    targets: tuple[str, ...]
    """The replicas' addresses, the one to begin with first."""
    balanced: bool
    """Checks go to all replicas in turn; otherwise all go where the watch goes."""
    token_file: str
    log_file: str
    lease_seconds: float
    defect: str = ""
    """For negative controls: see defects.py."""
    port: int = 0


class JumpingClock(SystemClock):
    """This machine's clocks, with a wall clock that can be set."""

    __slots__ = ("ahead_seconds",)

    def __init__(self) -> None:
        super().__init__()
        self.ahead_seconds = 0.0

    def realtime(self) -> float:
        """See Clock."""
        return super().realtime() + self.ahead_seconds


class Recorder:
    """Writes down what a verifier decided."""

    def __init__(self, log: Log, name: str) -> None:
        self._log = log
        self._name = name

    def decided(self, token: str, invoked: float, verdict: Verdict | None) -> None:
        """One decision; None where there was none."""
        returned = now()
        try:
            token_id = parse_token(token).id_text
        except MalformedTokenError:
            return
        outcome = "unavailable" if verdict is None else "accept" if isinstance(verdict, Active) else "inactive"
        self._log.write(Decision(token_id, "judged", self._name, invoked, returned, outcome))

    def counted(self, verifier: Any) -> None:
        """What it has counted so far."""
        status = verifier.status()
        self._log.write(Status(self._name, now(), status.hits, status.misses, status.attached))


def connection(configuration: Configuration) -> dict[str, Any]:
    """How the authority is reached: on a connection of one's own, tried again soon, and missed soon when it is dead."""
    options: list[tuple[str, Any]] = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if configuration.balanced:
        options.append(("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})))
    return {
        "target": "ipv4:" + ",".join(configuration.targets),
        "token": _token(configuration),
        "options": options,
        "keepalive_seconds": KEEPALIVE_SECONDS,
    }


async def serve_aio(configuration: Configuration, clock: JumpingClock, recorder: Recorder) -> None:
    """The service on grpc.aio, until standard input ends."""

    async def unary(request: bytes, context: Any) -> bytes:
        return b"ok"

    async def talk(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async with aio.connect(**connection(configuration)) as channel:
        verifier = caching.aio_verifier(channel, configuration, clock, recorder)
        server = grpc.aio.server(interceptors=[aio.ServerInterceptor(verifier, POLICY)])
        server.add_generic_rpc_handlers((_handlers(unary, talk),))
        port = server.add_insecure_port(f"127.0.0.1:{configuration.port}")
        await server.start()
        async with asyncio.TaskGroup() as group:
            counting = group.create_task(_count(recorder, verifier))
            await asyncio.to_thread(obey, verifier, clock, port)
            counting.cancel()
        await server.stop(None)
        await verifier.close()


async def _count(recorder: Recorder, verifier: Any) -> None:
    while True:
        recorder.counted(verifier)
        await pause(STATUS_PERIOD_SECONDS)


def serve_threads(configuration: Configuration, clock: JumpingClock, recorder: Recorder) -> None:
    """The service on the thread-pool server, until standard input ends."""

    def unary(request: bytes, context: Any) -> bytes:
        return b"ok"

    def talk(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    with (
        ThreadPoolExecutor(THREADS_COUNT) as pool,
        sync.connect(**connection(configuration)) as channel,
    ):
        verifier = caching.blocking_verifier(channel, configuration, clock, recorder)
        server = grpc.server(pool, interceptors=[sync.ServerInterceptor(verifier, POLICY)])
        server.add_generic_rpc_handlers((_handlers(unary, talk),))
        port = server.add_insecure_port(f"127.0.0.1:{configuration.port}")
        server.start()
        ended = threading.Event()

        def count() -> None:
            while not ended.wait(STATUS_PERIOD_SECONDS):
                recorder.counted(verifier)

        counting = threading.Thread(target=count)
        counting.start()
        obey(verifier, clock, port)
        ended.set()
        counting.join()
        server.stop(None).wait()
        verifier.close()


def obey(verifier: Any, clock: JumpingClock, port: int) -> None:
    """Says where it serves, then does as told until the end of standard input."""
    _answer({"port": port})
    for line in sys.stdin:
        clock.ahead_seconds += json.loads(line)["jump"]
        _answer({"attached": verifier.status().attached})


def _answer(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(dict(value)) + "\n")
    sys.stdout.flush()


def _handlers(unary: Any, talk: Any) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {"Unary": grpc.unary_unary_rpc_method_handler(unary), "Talk": grpc.stream_stream_rpc_method_handler(talk)},
    )


def _token(configuration: Configuration) -> str:
    return Path(configuration.token_file).read_text("ascii").strip()


def main() -> None:
    """Serves as the first line of standard input says."""
    configuration = Configuration(**json.loads(sys.stdin.readline()))
    clock = JumpingClock()
    with Log(Path(configuration.log_file)) as log:
        recorder = Recorder(log, configuration.name)
        if configuration.stack == "aio":
            asyncio.run(serve_aio(configuration, clock, recorder))
        else:
            serve_threads(configuration, clock, recorder)


if __name__ == "__main__":
    main()
