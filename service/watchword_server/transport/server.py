"""Builds the gRPC server: grpcio or native, from the same handlers, with a limit on everything. docs/transports.md
lists how the two differ.
"""

from __future__ import annotations

import socket
import stat
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import grpc
from grpc import aio

from watchword_server.transport.handlers import Handlers
from watchword_server.transport.listener import ListenAddress

Kind: TypeAlias = Literal["grpcio", "native"]

KEEPALIVE_TIME_MS: Final = 60_000
"""How often a silent connection is asked whether its client is still there."""
KEEPALIVE_TIMEOUT_MS: Final = 20_000
CLIENT_PING_INTERVAL_MS_MIN: Final = 9_000
"""How often a client may ping, below the 10 s that gRPC's clients can go down to. Servers refuse anything more frequent
than 300 s by default, and answer with GOAWAY `too_many_pings`."""
_RESPONSE_BYTES_MAX: Final = 16 * 1024 * 1024


class ListenError(Exception):
    """The address cannot be listened on. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection and one call may take."""

    request_bytes_max: int = 4 * 1024 * 1024
    metadata_bytes_max: int = 8192
    streams_per_connection_max: int = 2048
    """Calls at a time on one connection; further ones wait in the client. How many run at a time over all
    connections is the permits' business, in `request/`."""


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server that holds its address and is not serving yet."""

    server: aio.Server
    kind: Kind
    address: ListenAddress

    async def start(self) -> None:
        await self.server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more calls, waits up to `grace_seconds` for those under way, then cancels the rest."""
        await self.server.stop(grace_seconds)

    async def abandon(self) -> None:
        """Cancels every call now, also while `stop` waits for them."""
        if self.kind == "native":
            # It has no way to shorten a stop; cancelling its calls lets the one under way finish at once.
            calls: dict[int, Any] = self.server._calls  # type: ignore[attr-defined]
            for call in list(calls.values()):
                call.cancel()
        await self.server.stop(None)


def build_server(
    kind: Kind,
    handlers: Handlers,
    address: ListenAddress,
    *,
    limits: Limits,
    credentials: grpc.ServerCredentials | None = None,
    share_port: bool = False,
) -> BoundServer:
    """A server of `handlers` bound to `address`; call it inside the running loop. Port 0 becomes the one chosen.

    With `share_port`, other processes of this user may listen there as well; `transport/reservation.py` keeps strangers
    out. Unix sockets cannot be shared.

    Raises ListenError if the address is taken or cannot be bound, ValueError for TLS on native.
    """
    if kind == "native" and credentials is not None:
        raise ValueError("the native transport has no TLS")
    if address.unix_path is not None:
        _refuse_a_living_socket(address)
    server = _native(limits, share_port) if kind == "native" else aio.server(options=_options(limits, share_port))
    for service, methods in handlers.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(methods)),))
        # Native serves what is registered, but passes request streams to a grpcio server behind it, which below 1.84
        # looks at generic handlers only, and to which it hands those only of services that are not registered as well.
        if kind == "grpcio" or not any(method.request_streaming for method in methods.values()):
            server.add_registered_method_handlers(service, dict(methods))
    try:
        if credentials is None:
            port = server.add_insecure_port(address.target)
        else:
            port = server.add_secure_port(address.target, credentials)
    except (RuntimeError, OSError) as error:
        raise ListenError(_why_not(address, error)) from None
    return BoundServer(server, kind, address.at_port(port))


def _native(limits: Limits, share_port: bool) -> aio.Server:
    # Here, because it is an extra of its own and the other transport must do without it. By this form of import only:
    # the package's `__getattr__` answers `from pygrpc_native import aio` by asking itself, without end.
    import pygrpc_native.aio

    server: aio.Server = pygrpc_native.aio.server(options=_options(limits, share_port))
    return server


def _options(limits: Limits, share_port: bool) -> list[tuple[str, int]]:
    return [
        # grpcio shares the port by default: a second server would bind without an error and take half of the calls.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.request_bytes_max),
        ("grpc.max_send_message_length", _RESPONSE_BYTES_MAX),
        # The same twice: between a soft and a hard limit grpcio refuses calls at random.
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.streams_per_connection_max),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PING_INTERVAL_MS_MIN),
        # Identity only. Messages are small, and a compressed one could unpack to any size.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _refuse_a_living_socket(address: ListenAddress) -> None:
    """Both transports replace a socket file that is there, also one that another server is answering on."""
    path = address.unix_path
    assert path is not None
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"{path} exists and is no socket: move it away, or listen elsewhere (WATCHWORD_LISTEN)")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise ListenError(f"cannot tell whether {path} is in use: {error.strerror or error}") from None
    raise ListenError(f"another server is listening on {path}: stop it, or listen elsewhere (WATCHWORD_LISTEN)")


def _why_not(address: ListenAddress, error: Exception) -> str:
    """gRPC says little about why: binding once by hand tells a port taken from one not allowed."""
    if address.unix_path is None:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, where = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        except OSError as reason:
            return f"cannot listen on {address.target}: {reason.strerror}. Stop what uses it, or set WATCHWORD_LISTEN"
    return f"cannot listen on {address.target}: {error}"
