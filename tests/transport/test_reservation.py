"""A reserved address is shared with those who mean to share it, and refused to everybody else."""

from __future__ import annotations

import socket

import pytest

from watchword_server.transport.listener import ListenAddress, parse_listen_address
from watchword_server.transport.reservation import Reservation
from watchword_server.transport.server import ListenError


def listening(address: ListenAddress, *, shared: bool) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        made.bind((address.host, address.port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_a_reserved_port_is_for_those_who_share_it() -> None:
    with Reservation(parse_listen_address("127.0.0.1:0")) as reservation:
        with listening(reservation.address, shared=True), listening(reservation.address, shared=True):
            with pytest.raises(OSError, match="in use"):
                listening(reservation.address, shared=False)
            with pytest.raises(ListenError, match="WATCHWORD_LISTEN"):
                Reservation(reservation.address)
        # Also before anybody listens.
        with pytest.raises(ListenError, match="in use"):
            Reservation(reservation.address)
    Reservation(reservation.address).close()


def test_connections_of_an_earlier_server_are_no_hindrance() -> None:
    with Reservation(parse_listen_address("127.0.0.1:0")) as reservation:
        pass
    with listening(reservation.address, shared=False) as server:
        caller = socket.create_connection((reservation.address.host, reservation.address.port))
        connection, _ = server.accept()
        # The end that closes first keeps the port in TIME_WAIT.
        connection.close()
        assert caller.recv(1) == b""
        caller.close()
    Reservation(reservation.address).close()


def test_a_name_is_reserved_at_one_port_of_all_its_addresses() -> None:
    with Reservation(parse_listen_address("localhost:0")) as reservation:
        assert reservation.address.port > 0
        with pytest.raises(ListenError):
            Reservation(ListenAddress("127.0.0.1", reservation.address.port))


def test_an_address_of_another_machine_is_refused_with_why() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:0"):
        Reservation(parse_listen_address("192.0.2.1:0"))
