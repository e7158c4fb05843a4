"""A process that renews the token in a file, and kills itself at a step."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

from watchword.credentials.place import Attempt
from watchword.credentials.place_file import SharedTokenFile
from watchword.credentials.renewal import Renewal
from watchword.sync import RenewingToken, connect

STEPS = ("before the call", "before the file is written", "before the file is replaced", "after the file was replaced")


ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0


async def killed(address: str, path: Path, step: str, grace_seconds: float) -> int:
    """How a process ends that is killed at that step."""
    program = [sys.executable, "-m", "tests.client.killed_renewer", address, str(path), step, str(grace_seconds)]
    done = await asyncio.to_thread(
        subprocess.run, program, cwd=ROOT, timeout=SECONDS_MAX, capture_output=True, check=False
    )
    return done.returncode


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledPlace(SharedTokenFile):
    """A token's file, and the end of this process."""

    def __init__(self, path: Path, step: str) -> None:
        super().__init__(path)
        self._step = step

    def prepare(self, token_id: str, now_ms: int) -> Attempt:
        attempt = super().prepare(token_id, now_ms)
        if self._step == STEPS[0]:
            kill()
        return attempt

    def store(self, token: str) -> None:
        if self._step == STEPS[1]:
            kill()
        if self._step == STEPS[2]:
            Path.replace = lambda *paths: kill()  # type: ignore[method-assign,assignment]  # nothing comes after it
        super().store(token)

    def stored(self, token: str) -> None:
        kill()


def main(address: str, path: str, step: str, grace_seconds: str) -> None:
    # Due at once.
    new_renewal = partial(Renewal, uniform=lambda low, high: low / 100, grace_seconds=float(grace_seconds))
    token = RenewingToken(KilledPlace(Path(path), step), new_renewal)
    with connect(address, token=token) as authority, token.renewing(authority):
        threading.Event().wait(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
