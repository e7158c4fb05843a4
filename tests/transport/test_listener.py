"""Listen addresses say whether they stay on the machine, and doubtful ones are refused."""

from __future__ import annotations

import pytest

from watchword_server.transport.listener import parse_listen_address


@pytest.mark.parametrize(
    ("text", "target", "stays"),
    [
        ("127.0.0.1:7600", "127.0.0.1:7600", True),
        ("[::1]:0", "[::1]:0", True),
        ("localhost:1", "localhost:1", True),
        ("unix:/run/w.sock", "unix:/run/w.sock", True),
        ("0.0.0.0:7600", "0.0.0.0:7600", False),
        ("[::]:7600", "[::]:7600", False),
        ("10.0.0.1:65535", "10.0.0.1:65535", False),
        ("127.0.0.1.example.org:1", "127.0.0.1.example.org:1", False),
        ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1", False),
    ],
)
def test_addresses_are_read_and_judged(text: str, target: str, stays: bool) -> None:
    address = parse_listen_address(text)
    assert (address.target, address.stays_on_machine) == (target, stays)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "7600",
        "host:",
        ":1",
        "h:65536",
        "h:-1",
        "h:1.0",
        "h:٣",
        "::1:7600",
        "a b:1",
        "h/x:1",
        "unix:",
        "unix:x",
    ],
)
def test_doubtful_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each has a sentence of its own)
        parse_listen_address(text)


def test_the_chosen_port_is_told() -> None:
    assert parse_listen_address("[::1]:0").at_port(7).target == "[::1]:7"
    assert parse_listen_address("unix:/x").at_port(7).target == "unix:/x"
