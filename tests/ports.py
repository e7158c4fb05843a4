"""Ports for code that names its port itself, or comes back on the same one."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """One that nobody listens on. Below those that systems give away, so that it is still free when it is used."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
