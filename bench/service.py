"""A service that Watchword protects: one handler, offered bare, behind an interceptor that does nothing, and guarded.

All in one process, each on a port of its own: two processes of the same program differ by more than a check costs.
`walk` takes the same way through an interceptor without a network, which the noise of neighbours hardly reaches.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import grpc
import uvloop

from bench.conversation import Child, answer_questions, child
from bench.cpu import tree_cpu_ns
from bench.load import Target
from bench.population import SCOPE
from watchword.aio import CachingVerifier, RemoteVerifier, ServerInterceptor, connect
from watchword.policy import Policy

Side = Literal["bare", "passing", "cached", "remote"]
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

METHOD: Final = "/bench.v1.OrdersService/Get"
POLICY: Final = Policy(table={METHOD: [SCOPE]})
_LEASE_SECONDS_MAX: Final = 10.0


class Passing(grpc.aio.ServerInterceptor):
    """The floor: an interceptor that only hands on."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        return await continuation(handler_call_details)


@dataclass(frozen=True, slots=True)
class Details:
    """What gRPC tells an interceptor of a call."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class Context:
    """As much of a call as a guard asks for."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def details_of(tokens: Sequence[str]) -> list[Details]:
    return [Details(METHOD, (("user-agent", "bench"), ("authorization", f"Bearer {token}"))) for token in tokens]


async def walk(interceptor: Any, handler: Handler, calls: Sequence[Details], count: int) -> float:
    """CPU microseconds of this process for each of `count` calls through `interceptor` to the handler's answer."""
    context: Any = Context()

    async def continuation(details: object) -> Handler:
        return handler

    began = time.process_time_ns()
    for details in itertools.islice(itertools.cycle(calls), count):
        found = await interceptor.intercept_service(continuation, details)
        await found.unary_unary(b"", context)
    return (time.process_time_ns() - began) / 1000 / count


class Service:
    """What the child process holds."""

    def __init__(self) -> None:
        self.calls = 0
        self.handler: Final[Handler] = grpc.unary_unary_rpc_method_handler(self._get)
        self._servers: list[grpc.aio.Server] = []
        self._interceptors: dict[str, grpc.aio.ServerInterceptor] = {}
        self._caching: CachingVerifier | None = None

    async def _get(self, request: bytes, context: object) -> bytes:
        self.calls += 1
        return request

    async def _serve(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> int:
        server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
        service, method = METHOD[1:].split("/")
        handlers = {method: self.handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_registered_method_handlers(service, handlers)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._servers.append(server)
        return port

    async def open(self, authority: str, secret: str) -> dict[str, int]:
        """Begins to serve; the port of each side."""
        self._caching = CachingVerifier(connect(authority, token=secret), name="bench")
        await self._caching.start()
        self._interceptors = {
            "passing": Passing(),
            "cached": ServerInterceptor(self._caching, POLICY),
            "remote": ServerInterceptor(RemoteVerifier(connect(authority, token=secret)), POLICY),
        }
        sides = {"bare": [], **{side: [one] for side, one in self._interceptors.items()}}
        return {side: await self._serve(chain) for side, chain in sides.items()}

    async def close(self) -> None:
        """Gives the lease back: the authority's end would wait for it."""
        assert self._caching is not None
        await self._caching.close()

    async def status(self) -> dict[str, Any]:
        assert self._caching is not None
        status = asdict(self._caching.status())
        return {name: status[name] for name in ("caching", "hits", "misses", "joins")} | {"calls": self.calls}

    async def count_uses(self, wanted: bool) -> bool:
        """Whether the verifier counts what it admits from memory. What it has counted so far is forgotten."""
        assert self._caching is not None
        cache = self._caching._cache
        assert cache is not None
        cache.uses.want(False)
        cache.uses.want(wanted)
        return True

    async def walk(self, side: Side, tokens: Sequence[str], count: int) -> float:
        return await walk(self._interceptors[side], self.handler, details_of(tokens), count)


@dataclass(frozen=True, slots=True)
class ProtectedService:
    """The running process."""

    child: Child
    ports: Mapping[Side, int]

    def target(self, side: Side) -> Target:
        return Target(self.ports[side], METHOD)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.child.ask("status")
        return status

    def cpu_ns(self) -> int:
        return tree_cpu_ns(self.child.pid)

    def count_uses(self, wanted: bool) -> bool:
        return bool(self.child.ask("count_uses", wanted=wanted))

    def walk(self, side: Side, tokens: Sequence[str], count: int) -> float:
        """CPU microseconds per call, of the whole process and without a network of its own."""
        return float(self.child.ask("walk", side=side, tokens=list(tokens), count=count))


@contextmanager
def protected_service(port: int, secret: str) -> Iterator[ProtectedService]:
    """A service whose own token is `secret`, at the authority on `port`."""
    with child("bench.service") as running:
        yield ProtectedService(running, running.ask("open", authority=f"127.0.0.1:{port}", secret=secret))
        running.ask("close")


async def main() -> None:
    service = Service()
    await answer_questions(
        {
            "open": service.open,
            "close": service.close,
            "status": service.status,
            "walk": service.walk,
            "count_uses": service.count_uses,
        }
    )


if __name__ == "__main__":
    uvloop.run(main())
