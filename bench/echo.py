"""The floor: a server that does nothing with 90 bytes, on the same transports, registered in the same manner."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import grpc
import uvloop

from bench.cpu import tree_cpu_ns
from bench.load import Caller, Target
from bench.process import free_port, python_child
from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import Limits, build_server

Transport = Literal["grpcio", "native"]

SERVICE: Final = "bench.v1.EchoService"
PAYLOAD: Final = bytes(90)


class Echo:
    """Answers with what it got, and knows how often it did."""

    def __init__(self) -> None:
        self._calls = 0

    async def _say(self, request: bytes, context: object) -> bytes:
        self._calls += 1
        return request

    async def _count(self, request: bytes, context: object) -> bytes:
        return str(self._calls).encode()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        return {
            "Say": grpc.unary_unary_rpc_method_handler(self._say),
            "Count": grpc.unary_unary_rpc_method_handler(self._count),
        }


async def serve(transport: Transport, port: int) -> None:
    """Serves until it is ended from outside, from the very code that makes Watchword's own server."""
    server = build_server(transport, {SERVICE: Echo().handlers()}, ListenAddress("127.0.0.1", port), limits=Limits())
    await server.start()
    print("ready", flush=True)
    await server.server.wait_for_termination()


@dataclass(frozen=True, slots=True)
class EchoServer:
    """A running echo."""

    pid: int
    port: int

    @property
    def target(self) -> Target:
        return Target(self.port, f"/{SERVICE}/Say")

    def calls(self) -> int:
        """How many it has answered since it began."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            count = channel.unary_unary(f"/{SERVICE}/Count", request_serializer=bytes, response_deserializer=bytes)
            return int(count(b"", timeout=10))

    def cpu_ns(self) -> int:
        return tree_cpu_ns(self.pid)


def echo_callers(processes: int, bearer: str) -> list[Caller]:
    """Callers of the shape that Validate's have: the same headers, so the floor pays for those too."""
    return [Caller(PAYLOAD, bearer)] * processes


@contextmanager
def echo_server(transport: Transport) -> Iterator[EchoServer]:
    port = free_port()
    with python_child("bench.echo", ["--transport", transport, "--port", str(port)]) as process:
        yield EchoServer(process.pid, port)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["grpcio", "native"], required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.transport, arguments.port))


if __name__ == "__main__":
    main()
