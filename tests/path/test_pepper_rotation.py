"""A pepper's whole rotation on two servers, one restarted after the other: no token is refused at any moment of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, refusal_of
from tests.servers import ServerProcess, keyring_file
from watchword.v1 import token_service_pb2 as pb
from watchword_server.keyring import Keyring

TOKENS = 6


@dataclass
class Site:
    """Two servers of one keyring file, and the tokens that have to be good at any moment: the first one is the
    administrator's, who asks about the others."""

    servers: list[ServerProcess]
    keyring: Path
    secrets: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, *arguments: str, code: int = 0) -> str:
        """The command line beside the first server; what it wrote, also to stderr."""
        ended = self.servers[0].run(*arguments)
        said = ended.stdout + ended.stderr
        assert ended.returncode == code, said
        return said

    def restart(self, number: int) -> None:
        server = self.servers[number]
        assert server.stop() == 0, "".join(server.log)
        server.start()

    def doctor(self) -> dict[str, list[dict[str, str]]]:
        """Its findings by check."""
        found: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(self.servers[0].run("doctor", "-o", "json").stdout)["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return found

    @contextmanager
    def party(self, number: int, secret: str) -> Iterator[Party]:
        with grpc.insecure_channel(self.servers[number].address) as channel:
            yield Party(channel, secret)

    def judges(self, number: int) -> bool:
        """Whether a server is there, which then has to find each of them good: a wrong answer is no absence."""
        with self.lock, self.party(number, self.secrets[0]) as caller:
            try:
                assert {caller.verdict(secret) for secret in self.secrets[1:]} == {"active"}
            except grpc.RpcError as error:
                refusal = refusal_of(error)
                assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
                assert refusal.reason in ("", "DRAINING", "LEASE_MISSING"), refusal
                return False
        return True

    def rotate_all(self) -> list[str]:
        """Each token by itself, at once; the old ones."""
        with self.lock:
            old = self.secrets.copy()
            for at, secret in enumerate(old):
                with self.party(at % 2, secret) as holder:
                    done: Any = holder.rotate(pb.RotateRequest(grace=Duration()))
                    self.secrets[at] = done.secret
        return old


@contextmanager
def watched(site: Site) -> Iterator[None]:
    """While this runs, both servers are asked about all tokens again and again, and one always has the answer."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            # A moment between rounds, in which another thread gets the lock and the servers a core.
            while not ended.wait(0.02):
                # A restart begins only when the server before is back, so that of two rounds one meets each.
                assert any(site.judges(number) for number in (0, 1, 0, 1))
        except BaseException as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()
    assert not failures, failures


@pytest.fixture
def site(dsn: str, tmp_path: Path) -> Iterator[Site]:
    keyring = keyring_file(tmp_path)
    environment = {"WATCHWORD_DATABASE_URL": dsn, "WATCHWORD_KEYRING_FILE": str(keyring)}
    made = Site([ServerProcess(tmp_path, environment) for _ in range(2)], keyring)
    with made.servers[0], made.servers[1]:
        with made.party(0, made.servers[0].bootstrap()) as admin:
            made.secrets = [admin.secret]
            made.secrets += [
                admin.issue(f"holder-{number}", ("admin", "watchword")).secret for number in range(TOKENS - 1)
            ]
        yield made


@pytest.mark.timeout(300)
def test_no_token_is_refused_while_a_pepper_is_replaced(site: Site) -> None:
    with watched(site):
        site.run("keyring", "add-version")
        assert site.doctor()["keyring version 2"][0]["message"].endswith("no server has started with it yet")
        site.restart(0)
        [_, lacking] = site.doctor()["keyring"]
        assert lacking["status"] == "warn"
        assert "lacks version 2" in lacking["message"]
        site.restart(1)
        found = site.doctor()
        assert [one["status"] for one in found["keyring"]] == ["ok"]
        assert "watchword keyring make-current 2" in found["keyring version 2"][0]["message"]

        site.run("keyring", "make-current", "2")
        site.restart(0)
        with site.lock, site.party(0, site.secrets[0]) as admin:
            # Stored with the new version by the one, and checked by the other, which does not use it yet.
            site.secrets.append(admin.issue("newest", ("admin", "watchword")).secret)
        [_, using] = site.doctor()["keyring"]
        assert "stores new tokens with version 1, and 2 is current here" in using["message"]
        assert f"{TOKENS} live tokens need version 1" in site.run("keyring", "drop-version", "1", code=6)
        assert site.judges(1)
        site.restart(1)

        old = site.rotate_all()
        assert "it can go now" in site.doctor()["keyring version 1"][0]["message"]
        site.run("keyring", "drop-version", "1")
        site.restart(0)
        site.restart(1)
        found = site.doctor()
        assert "keyring version 1" not in found
        assert [one["status"] for one in found["keyring"]] == ["ok"]
        assert site.judges(0)
        assert site.judges(1)
    assert list(Keyring.load(site.keyring.read_text()).peppers) == [2]
    with site.party(1, site.secrets[0]) as admin:
        # What was stored with the key that is gone has ended, and is refused for that.
        assert {admin.verdict(secret) for secret in old} == {"inactive"}
