"""The proxy breaks connections as it says: otherwise no run through it proves anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.history.process import Program

SECONDS_MAX = 30
SILENCE_SECONDS = 0.2


@contextmanager
def echo() -> Iterator[int]:
    """A server that gives back what it gets; its port."""

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except ConnectionResetError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[Program, int]]:
    with echo() as port:
        program = Program("tests.history.proxy", {"links": {"it": f"127.0.0.1:{port}"}}, tmp_path / "proxy.log")
        try:
            yield program, program.start()["it"]
        finally:
            program.stop()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS_MAX)


def answers(connection: socket.socket, data: bytes = b"x") -> bool:
    """Whether it gives back what it is sent; shortly waited for where nothing is expected."""
    connection.sendall(data)
    return connection.recv(4096) == data


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE_SECONDS)
    try:
        connection.recv(4096)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(SECONDS_MAX)
    return False


@pytest.mark.parametrize("mode", ["hole", "hole_up", "hole_down"])
def test_a_black_hole_swallows_nothing_and_delivers_late(proxy: tuple[Program, int], mode: str) -> None:
    program, port = proxy
    with connected(port) as connection:
        assert answers(connection)
        program.tell({"link": "it", "mode": mode})
        connection.sendall(b"late")
        assert is_silent(connection)
        program.tell({"link": "it", "mode": "pass"})
        assert connection.recv(4096) == b"late"


def test_a_cut_resets_what_there_is_and_refuses_what_comes(proxy: tuple[Program, int]) -> None:
    program, port = proxy
    with connected(port) as connection:
        assert answers(connection)
        program.tell({"link": "it", "mode": "cut"})
        with pytest.raises(ConnectionResetError):
            connection.recv(4096)
    with pytest.raises(ConnectionResetError), connected(port) as connection:
        connection.recv(4096)
    program.tell({"link": "it", "mode": "pass"})
    with connected(port) as connection:
        assert answers(connection)


def test_half_open_connections_stay_dead_and_new_ones_pass(proxy: tuple[Program, int]) -> None:
    program, port = proxy
    with connected(port) as old, connected(port) as other:
        assert answers(old)
        assert answers(other)
        program.tell({"link": "it", "mode": "half_open"})
        old.sendall(b"lost")
        with connected(port) as new:
            assert answers(new)
        assert is_silent(old)


@pytest.mark.parametrize("mode", ["latency", "slow"])
def test_a_slow_link_still_delivers(proxy: tuple[Program, int], mode: str) -> None:
    program, port = proxy
    program.tell({"link": "it", "mode": mode})
    with connected(port) as connection:
        assert answers(connection)
