"""`watchword keyring` makes and rotates keys without showing those that exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from watchword_server.keyring import Keyring


@pytest.fixture
def file(offline: CommandLine, tmp_path: Path) -> Path:
    path = tmp_path / "keyring.json"
    path.write_text(Keyring.generate().dump())
    path.chmod(0o600)
    offline.environment["WATCHWORD_KEYRING_FILE"] = str(path)
    return path


def test_new_prints_a_keyring_that_loads(offline: CommandLine) -> None:
    first, second = offline("keyring", "new"), offline("keyring", "new")
    assert (first.returncode, first.stderr) == (0, "")
    assert Keyring.load(first.stdout).current == 1
    assert first.stdout != second.stdout


def test_rotation_adds_first_and_makes_current_later(offline: CommandLine, file: Path) -> None:
    before = Keyring.load(file.read_text())
    added = offline("keyring", "add-version")
    assert (added.returncode, added.stdout) == (0, "")
    between = Keyring.load(file.read_text())
    assert between.current == 1
    assert between.peppers[1] == before.peppers[1]
    assert offline("keyring", "make-current", "2").returncode == 0
    after = Keyring.load(file.read_text())
    assert (after.current, dict(after.peppers)) == (2, dict(between.peppers))
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["keyring.json"]


def test_keys_are_not_shown_unless_asked_for(offline: CommandLine, file: Path) -> None:
    key = json.loads(file.read_text())["peppers"]["1"]
    shown = [offline("keyring", *command) for command in (["show-versions"], ["add-version"], ["make-current", "1"])]
    assert all(key not in ended.stdout + ended.stderr for ended in shown)
    asked = offline("keyring", "add-version", "--print")
    assert json.loads(asked.stdout)["peppers"]["1"] == key


def test_print_leaves_the_file_as_it_is(offline: CommandLine, file: Path) -> None:
    before = file.read_text()
    assert offline("keyring", "add-version", "--print").returncode == 0
    assert file.read_text() == before


def test_versions_are_listed(offline: CommandLine, file: Path) -> None:
    offline("keyring", "add-version")
    ended = offline("keyring", "show-versions", "--output", "json")
    assert json.loads(ended.stdout) == {"current": 1, "versions": [1, 2]}


def test_unknown_version_is_refused(offline: CommandLine, file: Path) -> None:
    assert offline("keyring", "make-current", "9").returncode == 4


@pytest.mark.parametrize("content", ["", "{}", '{"current": 1, "peppers": {"1": "c2hvcnQ="}}'])
def test_damaged_keyring_is_refused_and_left_alone(offline: CommandLine, file: Path, content: str) -> None:
    file.write_text(content)
    ended = offline("keyring", "add-version")
    assert ended.returncode == 78
    assert file.read_text() == content


def test_missing_keyring_says_how_to_make_one(offline: CommandLine) -> None:
    ended = offline("keyring", "show-versions")
    assert ended.returncode == 78
    assert "watchword keyring new" in ended.stderr
