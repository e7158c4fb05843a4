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
