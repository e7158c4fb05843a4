"""Serves the metrics over plain HTTP to Prometheus. They hold counts and no names, so they need no token."""

from __future__ import annotations

import socket
from http.server import HTTPServer
from threading import Thread
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import MetricsHandler

from watchword_server.transport.listener import ListenAddress

REQUEST_SECONDS_MAX: Final = 5.0
_POLL_SECONDS: Final = 0.1


class ExpositionError(Exception):
    """The metrics cannot be served there. The text says why and what to do."""


class Exposition:
    """An HTTP server in one daemon thread, one request at a time: a scrape never stalls the loop that serves calls,
    and no number of scrapers makes it grow."""

    def __init__(self, registry: CollectorRegistry, address: ListenAddress) -> None:
        """Binds at once. Raises ExpositionError."""
        # A class of our own each time, because the timeout and the registry are attributes of the handler's class.
        self.handler = type("Handler", (MetricsHandler.factory(registry),), {"timeout": REQUEST_SECONDS_MAX})
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        server_class = type("Server", (HTTPServer,), {"address_family": family})
        try:
            self._server: HTTPServer = server_class((address.host, address.port), self.handler)
        except OSError as error:
            raise ExpositionError(
                f"cannot serve metrics on {address.target}: {error.strerror}. Stop what uses it, or set"
                " WATCHWORD_METRICS_LISTEN (empty turns them off)"
            ) from None
        self.address = address.at_port(self._server.server_port)
        self._thread = Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="watchword-metrics", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and ends the thread; waits for a scrape under way."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
