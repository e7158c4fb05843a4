"""Keeps an address for processes that share its port: theirs, and nobody else's.

SO_REUSEPORT lets any process of the same user listen on a port beside others, so a second server would take half of
the calls without an error. Whoever reserves binds alone first, which fails if anybody is there, and shares afterwards.
"""

from __future__ import annotations

import errno
import socket
from types import TracebackType
from typing import Self

from watchword_server.transport.listener import ListenAddress
from watchword_server.transport.server import ListenError


class Reservation:
    """An address bound and not listened on: connections go to those who do. A context manager."""

    def __init__(self, address: ListenAddress) -> None:
        """Binds. Port 0 becomes the one chosen. Raises ListenError if the address is taken or cannot be bound."""
        self.address = address
        self._sockets: list[socket.socket] = []
        try:
            self._bind_all()
        except OSError as error:
            self.close()
            raise ListenError(
                f"cannot listen on {address.target}: {error.strerror or error}. Stop what uses it, or set"
                " WATCHWORD_LISTEN"
            ) from None

    def _bind_all(self) -> None:
        """A name may stand for several addresses: those that this machine has are bound, all at the same port."""
        absent: OSError | None = None
        found = socket.getaddrinfo(
            self.address.host, self.address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, where in found:
            try:
                self._sockets.append(_bound_alone(family, (where[0], self.address.port, *where[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
                continue
            self.address = self.address.at_port(self._sockets[-1].getsockname()[1])
        if not self._sockets and absent is not None:
            raise absent

    def close(self) -> None:
        for one in self._sockets:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bound_alone(family: int, where: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Past connections of an earlier server are no hindrance, a listener is.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        # From here on whoever binds as above is refused, and whoever shares is not.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        made.close()
        raise
    return made
