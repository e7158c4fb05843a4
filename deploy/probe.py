"""Asks the Watchword of this container for its health, for probes: `python probe.py live` or `python probe.py ready`.

Kubernetes' own gRPC probe speaks no TLS, and a client of grpcio takes half a second of CPU to start and insists on
verifying a certificate that this container itself serves. So this is one call of `grpc.health.v1.Health/Check` in plain
HTTP/2, in a few milliseconds, with nothing but the standard library. It goes through the server's event loop like any
call: a server whose loop hangs does not answer, which an open port would not show.

`live` is satisfied with any answer; `ready` wants SERVING, which also means that the database is there. Address and TLS
are taken from the server's own settings. With mutual TLS it shows the server's certificate, so that has to be good for
clients too. Exit code 0: yes; 1: no, with the reason on stderr.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Final

SECONDS_MAX: Final = 4.0
FRAME_BYTES_MAX: Final = 16_384
REPLY_BYTES_MAX: Final = 1_024

# Frame types and flags of RFC 9113.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class ProbeError(Exception):
    """There is no usable answer."""


def check(environ: Mapping[str, str]) -> bytes:
    """The HealthCheckResponse for the whole server, as bytes. Raises ProbeError, OSError."""
    deadline = time.monotonic() + SECONDS_MAX
    tls = "WATCHWORD_TLS_CERTIFICATE_FILE" in environ
    with (
        _connect(environ.get("WATCHWORD_LISTEN", "127.0.0.1:7600")) as plain,
        _protect(plain, environ) if tls else plain as connection,
    ):
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0)
            + _frame(HEADERS, END_HEADERS, 1, _request_headers(tls))
            # An empty request in gRPC's envelope: not compressed, no bytes.
            + _frame(DATA, END_STREAM, 1, bytes(5))
        )
        return _reply(connection, deadline)


def _connect(listen: str) -> socket.socket:
    if listen.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(SECONDS_MAX)
        connection.connect(listen.removeprefix("unix:"))
        return connection
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104  # where to dial instead
    return socket.create_connection((host, int(port)), timeout=SECONDS_MAX)


def _protect(plain: socket.socket, environ: Mapping[str, str]) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is entrusted to the peer, and the peer is this container: there is no one to be deceived by.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if "WATCHWORD_TLS_CLIENT_CA_FILE" in environ:
        context.load_cert_chain(environ["WATCHWORD_TLS_CERTIFICATE_FILE"], environ["WATCHWORD_TLS_KEY_FILE"])
    return context.wrap_socket(plain)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _request_headers(tls: bool) -> bytes:
    """HPACK without compression: names by their index in the static table, values as they are (RFC 7541, 6.2.2)."""

    def text(value: bytes) -> bytes:
        return bytes((len(value),)) + value

    return (
        b"\x83"  # :method POST
        + (b"\x87" if tls else b"\x86")  # :scheme
        + (b"\x04" + text(b"/grpc.health.v1.Health/Check"))  # :path
        + (b"\x01" + text(b"localhost"))  # :authority
        + (b"\x0f\x10" + text(b"application/grpc"))  # content-type
        + (b"\x00" + text(b"te") + text(b"trailers"))
    )


def _reply(connection: socket.socket, deadline: float) -> bytes:
    body = b""
    while len(body) <= REPLY_BYTES_MAX:
        header = _exactly(connection, 9, deadline)
        size, kind, flags, stream = int.from_bytes(header[:3]), header[3], header[4], int.from_bytes(header[5:])
        if size > FRAME_BYTES_MAX:
            raise ProbeError("that is no HTTP/2")
        payload = _exactly(connection, size, deadline)
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(_frame(SETTINGS, ACK, 0))
        if kind == GOAWAY or (kind == RST_STREAM and stream == 1):
            raise ProbeError("the server ended the call")
        if stream == 1 and kind == DATA:
            body += payload
        if stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
            # Without a message the trailers hold an error; which one matters to nobody here.
            if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5]) != len(body) - 5:
                raise ProbeError("the server answered with an error")
            return body[5:]
    raise ProbeError("the answer does not end")


def _exactly(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = b""
    while len(received) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeError(f"no answer within {SECONDS_MAX:g} s")
        connection.settimeout(left)
        part = connection.recv(size - len(received))
        if not part:
            raise ProbeError("the server hung up")
        received += part
    return received


def main(arguments: list[str]) -> int:
    """The exit code for `live` or `ready`."""
    if arguments not in (["live"], ["ready"]):
        sys.stderr.write("usage: probe.py live | ready\n")
        return 2
    try:
        answer = check(os.environ)
    except (ProbeError, OSError) as error:
        sys.stderr.write(f"no health: {error}\n")
        return 1
    if answer == SERVING or arguments == ["live"]:
        return 0
    sys.stderr.write("not serving\n" if answer == NOT_SERVING else "health unknown\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
