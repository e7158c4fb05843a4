"""The keyring: weak or ambiguous ones are refused, nothing of one is ever shown, and a file is made once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from watchword_server.keyring import Keyring, KeyringError

PEPPER = bytes(range(32))
OTHER = bytes(range(1, 33))


def encoded(pepper: bytes) -> str:
    return base64.b64encode(pepper).decode()


def document(current: object, peppers: object) -> str:
    return json.dumps({"current": current, "peppers": peppers})


def test_digest_is_hmac_sha256_under_the_current_pepper() -> None:
    ring = Keyring.load(document(2, {"1": encoded(OTHER), "2": encoded(PEPPER)}))
    assert ring.digest(b"token") == hmac.new(PEPPER, b"token", hashlib.sha256).digest()
    assert ring.digest_with(1, b"token") == hmac.new(OTHER, b"token", hashlib.sha256).digest()


def test_an_unknown_version_has_no_digest() -> None:
    assert Keyring.generate().digest_with(2, b"token") is None


def test_an_unknown_scheme_has_no_digest() -> None:
    assert Keyring.generate().digest_with(1, b"token", 2) is None


def test_check_value_tells_peppers_apart_and_is_no_digest_of_a_token() -> None:
    ring = Keyring(1, {1: PEPPER, 2: OTHER})
    assert ring.check_value(1) != ring.check_value(2)
    assert len(ring.check_value(1)) == 32


def test_dump_and_load_round_trip() -> None:
    ring = Keyring.generate()
    assert Keyring.load(ring.dump()) == ring


def test_the_highest_number_ever_given_is_kept_once_its_key_is_gone() -> None:
    ring = Keyring.load(document(1, {"1": encoded(PEPPER), "3": encoded(OTHER)}))
    assert ring.highest == 3
    assert "highest" not in json.loads(ring.dump())
    left = Keyring(1, {1: PEPPER}, highest=ring.highest)
    assert json.loads(left.dump())["highest"] == 3
    assert Keyring.load(left.dump()) == left
    # Added by hand, beyond what the file knows.
    by_hand = {"current": 1, "peppers": {"1": encoded(PEPPER), "5": encoded(OTHER)}, "highest": 3}
    assert Keyring.load(json.dumps(by_hand)).highest == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        document(1, {}),
        document(2, {"1": encoded(PEPPER)}),
        document("1", {"1": encoded(PEPPER)}),
        document(True, {"1": encoded(PEPPER)}),
        document(1.0, {"1": encoded(PEPPER)}),
        document(1, [encoded(PEPPER)]),
        document(1, {"1": 5}),
        document(1, {"1": "not base64!"}),
        document(1, {"1": encoded(PEPPER[:31])}),
        document(1, {"1": encoded(PEPPER * 5)}),
        document(1, {"1": encoded(bytes(32))}),
        document(1, {"1": encoded(b"passwordpasswordpasswordpassword")}),
        document(1, {"01": encoded(PEPPER)}),
        document(1, {"1": encoded(PEPPER), "-2": encoded(OTHER)}),
        document(1, {"1": encoded(PEPPER), "32768": encoded(OTHER)}),
        document(1, {"1": encoded(PEPPER), "2": encoded(PEPPER)}),
        json.dumps({"current": 1, "peppers": {"1": encoded(PEPPER)}, "extra": 1}),
        json.dumps({"current": 1, "peppers": {"1": encoded(PEPPER)}, "highest": "2"}),
        json.dumps({"current": 1, "peppers": {"1": encoded(PEPPER)}, "highest": True}),
        json.dumps({"current": 1, "peppers": {"1": encoded(PEPPER)}, "highest": 32_768}),
        json.dumps({"current": 1, "peppers": {"1": encoded(PEPPER)}, "highest": -1}),
        f'{{"current": 1, "current": 1, "peppers": {{"1": "{encoded(PEPPER)}"}}}}',
        f'{{"current": 1, "peppers": {{"1": "{encoded(OTHER)}", "1": "{encoded(PEPPER)}"}}}}',
    ],
)
def test_a_weak_or_ambiguous_keyring_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(KeyringError) as caught:
        Keyring.load(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert encoded(PEPPER) not in shown
    assert "passwordpassword" not in shown


def test_repr_shows_no_pepper() -> None:
    ring = Keyring(1, {1: PEPPER})
    assert repr(PEPPER)[2:20] not in repr(ring)


def test_load_or_create_makes_a_private_file_and_finds_it_again(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    ring = Keyring.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.load_or_create(path) == ring
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring.json"]


def test_of_many_that_start_at_once_all_use_one_keyring(tmp_path: Path) -> None:
    count = 8
    barrier = Barrier(count)

    def start(_: int) -> Keyring:
        barrier.wait()
        return Keyring.load_or_create(tmp_path / "keyring.json")

    with ThreadPoolExecutor(count) as pool:
        rings = list(pool.map(start, range(count)))
    assert all(ring == rings[0] for ring in rings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o602])
def test_a_file_that_others_can_reach_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    Keyring.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600"):
        Keyring.load_or_create(path)


def test_a_damaged_file_is_refused_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(KeyringError):
        Keyring.load_or_create(path)
    assert path.read_text() == "{"
