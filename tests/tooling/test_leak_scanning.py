"""The rules for other scanners find tokens: run with those themselves, gitleaks where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_scan import secret_of, token, token_id
from tests.cli.test_scan_git import git
from tests.tooling.sources import ROOT
from watchword.token import PREFIX_DEFAULT, token_pattern

RULES = ROOT / "deploy" / "leak-scanning"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
STEP_SECONDS_MAX = 60
BIN = Path(sys.executable).parent


def gitleaks_rule() -> dict[str, Any]:
    (rule,) = tomllib.loads((RULES / "gitleaks.toml").read_text(encoding="utf-8"))["rules"]
    return dict(rule)


def test_gitleaks_rule_is_the_tokens_pattern() -> None:
    """In the part of the syntax that Go's expressions and Python's have in common."""
    rule = gitleaks_rule()
    assert rule["regex"] == token_pattern().pattern
    assert rule["keywords"] == [PREFIX_DEFAULT]
    # gitleaks looks for keywords in text that it has put into lower case.
    assert rule["keywords"] == [one.lower() for one in rule["keywords"]]


def test_gitleaks_rule_finds_the_whole_token_and_no_cut_one() -> None:
    one = token().text.decode()
    pattern = re.compile(gitleaks_rule()["regex"])
    for line in (one, f'key = "{one}"', f"https://x/?token={one}&a=b", f"TOKEN={one}"):
        assert pattern.findall(line) == [one]
    assert pattern.findall(one[:-1]) == []


GITLEAKS = shutil.which("gitleaks")


@pytest.mark.skipif(GITLEAKS is None, reason="needs gitleaks: go install github.com/zricethezav/gitleaks/v8@latest")
def test_gitleaks_itself_finds_what_was_committed_and_removed_again_and_nothing_else(tmp_path: Path) -> None:
    assert GITLEAKS is not None
    leaked = token()
    git(tmp_path, "init", "--quiet")
    command = [GITLEAKS, "detect", "--redact", "--config", str(RULES / "gitleaks.toml"), "--report-path", "-"]
    command += ["--report-format", "json", "--no-banner", "--source", str(tmp_path)]

    def found_after(text: str) -> list[tuple[str, int]]:
        (tmp_path / "settings.py").write_text(text)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "--message", "settings")
        ended = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS_MAX, check=False)
        assert secret_of(leaked) not in ended.stdout + ended.stderr
        findings = [one for one in json.loads(ended.stdout) if one["RuleID"] == "watchword-token"]
        assert ended.returncode == 1 or not findings, ended.stderr
        return [(one["File"], one["StartLine"]) for one in findings]

    # An id may look like some other key to gitleaks' own rules.
    assert found_after(f"public = '{token_id(leaked)}'\n") == []
    assert found_after(f"\nTOKEN = '{leaked.text.decode()}'\n") == [("settings.py", 2)]
    assert found_after("nothing = 1\n") == [("settings.py", 2)]


def test_detect_secrets_finds_tokens_with_the_plugin_and_by_their_checksum_only(tmp_path: Path) -> None:
    one = token().text.decode()
    wrong = one[:-1] + ("a" if one[-1] != "a" else "b")
    (tmp_path / "leak.py").write_text(f"x = 1\nTOKEN = '{one}'\n")
    (tmp_path / "wrong.py").write_text(f"TOKEN = '{wrong}'\n")
    plugin = str(RULES / "detect_secrets_watchword.py")
    ended = subprocess.run(
        [sys.executable, "-m", "detect_secrets", "scan", "--all-files", "--plugin", plugin],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
        check=True,
    )
    found = [
        (name, one["line_number"])
        for name, secrets in json.loads(ended.stdout)["results"].items()
        for one in secrets
        if one["type"] == "Watchword Token"
    ]
    assert found == [("leak.py", 2)]


@pytest.fixture
def hooked(tmp_path: Path) -> Path:
    """A repository whose commits run our hook, as this environment has it installed: nothing is downloaded."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (hook,) = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))
    del hook["additional_dependencies"], hook["minimum_pre_commit_version"]
    configured = {"repos": [{"repo": "local", "hooks": [{**hook, "language": "system"}]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(configured))
    git(folder, "add", ".")
    return folder


def pre_commit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "WATCHWORD_"))}
    environment |= {"PRE_COMMIT_HOME": str(folder.parent / "cache"), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
        check=False,
    )


def test_pre_commit_accepts_the_hooks(tmp_path: Path) -> None:
    ended = pre_commit(tmp_path, "validate-manifest", str(HOOKS))
    assert ended.returncode == 0, ended.stdout


def test_pre_commit_refuses_a_token_and_lets_the_rest_pass(hooked: Path) -> None:
    (hooked / "fine.py").write_text("x = 1\n")
    git(hooked, "add", ".")
    passed = pre_commit(hooked, "run")
    assert (passed.returncode, "Passed" in passed.stdout) == (0, True), passed.stdout
    leaked = token()
    (hooked / "leak.py").write_bytes(b"\n" + leaked.text)
    git(hooked, "add", ".")
    # What is committed counts, not what the file has become since.
    (hooked / "leak.py").write_text("nothing\n")
    refused = pre_commit(hooked, "run")
    assert refused.returncode == 1, refused.stdout
    assert "leak.py:2" in refused.stdout
    assert token_id(leaked) in refused.stdout
    assert secret_of(leaked) not in refused.stdout + refused.stderr
