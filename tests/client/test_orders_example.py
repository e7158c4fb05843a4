"""The example shows what it says it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from watchword.testing import FakeAuthority, serve

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN = """\
no token                                   UNAUTHENTICATED TOKEN_MISSING
a token without the scope                  PERMISSION_DENIED SCOPE_MISSING (orders.read)
the right token                            OK, order 42 seen by alice
the same token, revoked                    UNAUTHENTICATED TOKEN_INACTIVE
  a stream says                            packed
  a stream says                            shipped
  its token is revoked
  and its next message is                  UNAUTHENTICATED TOKEN_INACTIVE
"""


def demo(address: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orders.demo"],
        cwd=EXAMPLES,
        env={**os.environ, "WATCHWORD_ADDRESS": address, "WATCHWORD_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demonstration_meets_every_answer(tmp_path: Path) -> None:
    authority = FakeAuthority()
    admin = authority.issue("admin", scopes=["watchword.*"], audiences=["watchword"])
    (tmp_path / "admin-token").write_text(admin + "\n")
    with serve(authority) as address:
        ended = demo(address, tmp_path)
    assert "Traceback" not in ended.stderr
    assert [line.rstrip() for line in ended.stdout.splitlines()] == SHOWN.splitlines()
    assert ended.returncode == 0


def test_the_demonstration_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    ended = demo("127.0.0.1:1", tmp_path)
    assert ended.returncode == 1
    assert "watchword serve" in ended.stderr
    assert "Traceback" not in ended.stderr
