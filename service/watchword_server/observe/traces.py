"""OpenTelemetry spans around calls, when a collector is configured; otherwise handlers are left as they are.

A span says which method ran and how it ended. Never an argument, an exception's text or metadata: a collector is one
more place that a secret would have to be erased from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import grpc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Behaviour: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
FLUSH_SECONDS_MAX: Final = 5
# W3C trace context, and nothing else of what the caller sent.
_PROPAGATED: Final = frozenset({"traceparent", "tracestate"})


class TracesError(Exception):
    """Traces are asked for and cannot be had. The text says what to do."""


class Traces:
    """Wraps handlers in spans. Make one with `to_collector`; `close` sends what is left."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("watchword")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to_collector(cls, endpoint: str) -> Self:
        """Sends spans to an OTLP collector over gRPC: `http://` in the clear, `https://` with TLS.

        Raises TracesError if OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        except ModuleNotFoundError:
            raise TracesError(
                "WATCHWORD_OTLP_ENDPOINT needs OpenTelemetry: pip install 'watchword[server,otel]'"
            ) from None

        return cls.to_exporter(OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")))

    @classmethod
    def to_exporter(cls, exporter: SpanExporter) -> Self:
        """Sends spans to `exporter`, in batches from a thread of its own. Sampling is OTEL_TRACES_SAMPLER's."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=Resource.create({"service.name": "watchword"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def wrap(self, path: str, behaviour: Behaviour) -> Behaviour:
        """The unary `behaviour` of `/package.Service/Method`, in a server span that continues the caller's trace."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        service, _, method = path.lstrip("/").partition("/")
        name = path.lstrip("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

        async def traced(request: Any, context: Any) -> Any:
            carrier = {key: value for key, value in context.invocation_metadata() or () if key in _PROPAGATED}
            with self._tracer.start_as_current_span(
                name,
                context=self._propagator.extract(carrier) if carrier else None,
                kind=SpanKind.SERVER,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    answer = await behaviour(request, context)
                except BaseException as error:
                    code = _code_number(context.code()) or _code_of(error)
                    span.set_status(Status(StatusCode.ERROR))
                    span.set_attribute("rpc.grpc.status_code", code)
                    raise
                span.set_attribute("rpc.grpc.status_code", _code_number(context.code()))
                return answer

        return traced

    def close(self) -> None:
        """Sends what is left, for at most FLUSH_SECONDS_MAX, and ends the thread. Blocks: use `asyncio.to_thread`."""
        self._provider.force_flush(FLUSH_SECONDS_MAX * 1000)
        self._provider.shutdown()


def _code_of(error: BaseException) -> int:
    """What an error that set no status becomes: a cancelled call is CANCELLED, anything else UNKNOWN."""
    code = grpc.StatusCode.CANCELLED if isinstance(error, asyncio.CancelledError) else grpc.StatusCode.UNKNOWN
    return _code_number(code)


def _code_number(code: object) -> int:
    """grpcio answers with a number or None, native with the enum or None."""
    if isinstance(code, grpc.StatusCode):
        number: int = code.value[0]
        return number
    return code if isinstance(code, int) else 0
