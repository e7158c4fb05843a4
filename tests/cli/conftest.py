"""The command line as a process of its own, and an authority for it to talk to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.authority import Authority, serving
from tests.servers import WATCHWORD
from watchword.v1.fleet_service_pb2 import Replica, Watcher

PROCESS_SECONDS_MAX = 30


@dataclass
class CommandLine:
    """Runs `watchword` with a known environment."""

    environment: dict[str, str]
    caller: str = field(default="", repr=False)

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*WATCHWORD, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PROCESS_SECONDS_MAX,
            check=False,
            env={**self.environment, **environment},
        )

    def into_closed_pipe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """With a reader of its output that has gone away."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            return subprocess.run(
                [*WATCHWORD, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PROCESS_SECONDS_MAX,
                check=False,
                env=self.environment,
            )
        finally:
            os.close(writing)


@pytest.fixture
def authority() -> Iterator[Authority]:
    # The command line never calls BatchValidate.
    with serving(Authority()) as running:
        yield running


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    """Without a server or a token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")}
    return CommandLine({**kept, "WATCHWORD_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture
def watchword(offline: CommandLine, authority: Authority) -> CommandLine:
    """With an administrator's token for `authority`."""
    secret = authority.add("admin", scopes=["watchword.*"], audiences=["watchword"])
    offline.environment |= {"WATCHWORD_ADDRESS": authority.address, "WATCHWORD_TOKEN": secret}
    offline.caller = secret
    return offline


@pytest.fixture
def fleet(authority: Authority) -> None:
    """Two servers: one has applied everything, the other waits for two of its verifiers."""
    for name, number in (("one", 7), ("two", 5)):
        replica = Replica(replica_id=name, name=f"server-{name}", watchers_count=1)
        replica.applied.epoch, replica.applied.number = authority.position.epoch, number
        replica.lease.FromSeconds(60)
        replica.renewed_ago.FromSeconds(1)
        authority.replicas.append(replica)
    for replica_id, name, instance, lag, attached in (
        ("one", "till", "web-1", 0, True),
        ("two", "orders", "web-3", 2, True),
        ("two", "cart", "web-4", 0, False),
    ):
        watcher = Watcher(
            replica_id=replica_id, name=name, instance=instance, lag=lag, attached=attached, subject=f"{name}-service"
        )
        watcher.lease_remaining.FromSeconds(41)
        authority.watchers.append(watcher)
