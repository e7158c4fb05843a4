"""Where a server listens: `host:port` or `unix:/path`, taken apart once so that nobody guesses later."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNIX_PATH_BYTES_MAX: Final = 107
"""What fits `sun_path` on Linux, with its closing NUL."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address to bind. Either `unix_path` or `host` and `port` is set; port 0 asks the kernel for a free one."""

    host: str = ""
    port: int = 0
    unix_path: Path | None = None

    @property
    def target(self) -> str:
        """The address as gRPC takes it, to bind and to dial."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def stays_on_machine(self) -> bool:
        """Whether bytes sent here never cross a network: a Unix socket or a loopback address.

        A host name is taken for a network address (except `localhost`): what it resolves to can change under us.
        """
        if self.unix_path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def at_port(self, port: int) -> ListenAddress:
        """The same address with the port the kernel chose. A Unix socket has none and stays as it is."""
        return self if self.unix_path is not None else ListenAddress(self.host, port)


def parse_listen_address(text: str) -> ListenAddress:
    """Reads `127.0.0.1:7600`, `[::1]:7600`, `localhost:7600` or `unix:/run/watchword.sock`.

    Raises ValueError with a sentence that says what to write instead.
    """
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text:
        raise ValueError("write it as host:port, such as 127.0.0.1:7600, or as unix:/path")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= 65535):
        raise ValueError("the port must be a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("put an IPv6 address in brackets, such as [::1]:7600")
    if not host:
        raise ValueError("name the interface to listen on: 127.0.0.1 for this machine, 0.0.0.0 for all networks")
    if any(character.isspace() or character in "/%" for character in host):
        raise ValueError("that is no host name or address")
    return ListenAddress(host, int(port_text))


def _unix(path_text: str) -> ListenAddress:
    if not path_text.startswith("/"):
        raise ValueError("write a Unix socket with its whole path, such as unix:/run/watchword.sock")
    if len(os.fsencode(path_text)) > UNIX_PATH_BYTES_MAX:
        raise ValueError(f"a Unix socket's path has at most {UNIX_PATH_BYTES_MAX} bytes; choose a shorter one")
    return ListenAddress(unix_path=Path(path_text))
