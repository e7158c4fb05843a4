"""Services as plain tables of handlers, so that registering them is one piece of code for both transports."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection_pb2_grpc

from watchword_server.transport.health import HealthService

Handlers: TypeAlias = "Mapping[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]]"
"""Service name, method name, handler. Behaviours are `async def`, or async generators."""

REFLECTIONS_MAX: Final = 64
"""Streams at a time. Nobody needs a token for one, and each is kept for as long as its client likes."""


class _Recorder:
    """Stands in for a server where generated code insists on one, and keeps what it is given."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[object]) -> None:
        """Generated code offers every handler in both forms; the other one is enough."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.handlers[service_name] = method_handlers


def _recorded(add: Callable[[Any, Any], None], servicer: object) -> Handlers:
    """The table behind a generated `add_XServicer_to_server`."""
    recorder = _Recorder()
    add(servicer, recorder)
    return recorder.handlers


def health_handlers(health: HealthService) -> Handlers:
    return _recorded(health_pb2_grpc.add_HealthServicer_to_server, health)


def reflection_handlers(services: Iterable[str], *, streams_max: int = REFLECTIONS_MAX) -> Handlers:
    """Server reflection (v1alpha, which every tool speaks) over the `.proto` files of `services`."""
    servicer = _BoundedReflection(tuple(services), streams_max)
    return _recorded(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer)


class _BoundedReflection:
    """The stock servicer would hold any number of streams open."""

    def __init__(self, services: tuple[str, ...], streams_max: int) -> None:
        self._servicer = reflection_aio.ReflectionServicer(services)
        self._streams_max = streams_max
        self._streams = 0

    async def ServerReflectionInfo(  # noqa: N802 (the protocol's name)
        self, request_iterator: AsyncIterable[Any], context: Any
    ) -> AsyncIterator[Any]:
        if self._streams >= self._streams_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reflection streams")
        self._streams += 1
        try:
            async for response in self._servicer.ServerReflectionInfo(request_iterator, context):
                yield response
        finally:
            self._streams -= 1
