"""Secrets come by standard input, prompt or file; a token among the arguments is refused before anything is sent."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.authority import Authority
from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.token import new_token, new_token_id
from watchword_server.cli.errors import CommandError
from watchword_server.cli.secrets_input import read_secret_file, refuse_tokens_in


@pytest.mark.parametrize(
    "before",
    [["validate"], ["revoke"], ["tokens", "show"], ["revoke", "--id"], ["issue", "--name"], ["scopes", "register"]],
)
def test_token_among_arguments_is_refused_and_nothing_is_sent(
    watchword: CommandLine, authority: Authority, before: list[str]
) -> None:
    secret = authority.add()
    ended = watchword(*before, secret)
    assert ended.returncode == 2
    assert "shell's history" in ended.stderr
    assert f"watchword revoke --id {authority.tokens[secret].token_id}" in ended.stderr
    assert secret not in ended.stderr + ended.stdout
    assert authority.requests == []


@pytest.mark.parametrize("prefix", ["ww_", "acme_"])
def test_token_inside_an_argument_is_found_whatever_its_prefix(prefix: str) -> None:
    token = new_token(new_token_id(1), prefix).text.decode()
    with pytest.raises(CommandError) as refused:
        refuse_tokens_in(["issue", f"--metadata=key={token}"])
    assert token[len(prefix) + 22 :] not in refused.value.message + refused.value.remedy


@given(st.lists(st.text(max_size=80)))
def test_ordinary_arguments_pass(arguments: list[str]) -> None:
    refuse_tokens_in([argument for argument in arguments if "_" not in argument])


def test_long_words_without_a_checksum_pass() -> None:
    refuse_tokens_in(["cli_" + "a" * 61])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"one\ntwo\n", "more than one"),
        (b"Bearer ww_x", "more than one"),
        (b"a" * 5000, "more than one"),
        ("ww_ü".encode(), "characters that no token has"),
        (b"ww_\x1b[2J", "characters that no token has"),
        (b"\xff\xfe", "characters that no token has"),
    ],
)
def test_file_without_one_token_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(CommandError, match=problem):
        read_secret_file(file, "the file")


def test_space_around_the_token_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"  ww_secret\r\n")
    assert read_secret_file(file, "the file") == "ww_secret"


def test_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot read the token from the file: No such file"):
        read_secret_file(tmp_path / "absent", "the file")


def test_prompt_on_a_terminal_does_not_echo(watchword: CommandLine, authority: Authority) -> None:
    secret = authority.add()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*WATCHWORD, "validate"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=watchword.environment,
        start_new_session=True,
        bufsize=0,
    ) as process:
        assert process.stderr is not None
        prompt = process.stderr.read(1)
        # The prompt comes after the echo is turned off.
        os.write(ours, secret.encode() + b"\n")
        stdout, stderr = process.communicate(timeout=PROCESS_SECONDS_MAX)
    os.set_blocking(ours, False)
    try:
        echoed = os.read(ours, 65_536)
    except OSError:
        echoed = b""
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert (prompt + stderr).startswith(b"Token to validate")
    assert secret.encode() not in stdout + stderr + echoed
