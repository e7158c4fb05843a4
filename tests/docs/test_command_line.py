"""docs/command-line.md names the commands, options and exit codes that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from tests.docs.documents import blocks, code, rows, text_of
from watchword_server.cli.errors import ExitCode
from watchword_server.cli.program import build

PATH = "docs/command-line.md"


def commands() -> dict[str, Any]:
    """Every command by what one types."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for part, one in inner.items():
            yield from walk(one, f"{name} {part}")

    return dict(walk(typer.main.get_command(build()), "watchword"))


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_every_command_is_listed() -> None:
    assert sorted(code(row[0])[0] for row in rows(PATH, "The command line")) == sorted(commands())


def test_exit_codes_are_those_of_the_program() -> None:
    assert {int(row[0]): code(row[1])[0] for row in rows(PATH, "Exit codes")} == {
        one.value: one.name for one in ExitCode
    }


def test_connection_options_and_variables_are_those_of_the_program() -> None:
    listing = commands()["watchword tokens list"]
    by_option = {parameter.opts[0]: parameter for parameter in listing.params}
    for row in rows(PATH, "Which server, with whose token"):
        if not code(row[0]):
            continue
        (option,) = code(row[0])
        assert option in by_option
        # The token's variable is looked up beside the parser, in an order of its own.
        if code(row[1]) and option != "--token-file":
            assert by_option[option].envvar == code(row[1])[0]


def test_every_option_in_the_text_exists() -> None:
    general = {"--help", "--install-completion", "--show-completion"}
    of_kubectl = {"--from-file"}
    known = set().union(general, of_kubectl, *map(options, commands().values()))
    mentioned = {option for span in code(text_of(PATH)) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)}
    assert mentioned - known == set()


EXAMPLES = [
    line
    for block in blocks(PATH)
    if block.language == "sh"
    for line in block.text.splitlines()
    if line.startswith("watchword ") and not line.startswith("watchword --")
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_example_is_understood(line: str) -> None:
    """By the parser; what the commands then do is tested with a server."""
    words = shlex.split(re.split(r" [<|] ", line)[0])
    known = commands()
    name = " ".join(words[:3]) if " ".join(words[:3]) in known else " ".join(words[:2])
    context = known[name].make_context(name, words[len(name.split()) :])
    assert context.params
