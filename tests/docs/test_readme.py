"""The README's five minutes, taken word for word against a server of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.documents import Block, blocks
from tests.ports import free_port
from tests.servers import START_SECONDS_MAX
from tests.tooling.sources import ROOT

README = "README.md"
# What differs from run to run, and from machine to machine.
_VARIES = (
    (re.compile(r"\b0[0-9A-Za-z]{21}\b"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<instant>"),
    (re.compile(r"after [0-9.]+ m?s, 1 replica, \d verifiers?"), "after <time>, 1 replica, <count> verifiers"),
    (re.compile(r"\(in \w+\)"), "(in <time>)"),
)


def plain(text: str) -> list[str]:
    """Its lines, without what varies."""
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


class Clone:
    """A folder that looks as a clone does to the README's commands, and ports and data of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.orders_address = f"127.0.0.1:{free_port()}"
        self.data_dir = folder / "data"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")},
            "WATCHWORD_DATA_DIR": str(self.data_dir),
            "WATCHWORD_ADDRESS": self.address,
        }
        (folder / ".venv").symlink_to(sys.prefix)
        shutil.copytree(ROOT / "examples", folder / "examples")

    def shell(self, command: str) -> str:
        """Runs a block and gives all that it says."""
        ended = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def run(self) -> subprocess.Popen[str]:
        """What `make run` starts, in the environment that is there already."""
        assert "\n\t@exec $(BIN)/watchword serve\n" in (ROOT / "Makefile").read_text()
        return subprocess.Popen(
            [".venv/bin/watchword", "serve"],
            cwd=self.folder,
            env={**self.environment, "WATCHWORD_LISTEN": self.address, "WATCHWORD_METRICS_LISTEN": "127.0.0.1:0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def here(self, text: str) -> str:
        """The README's text as it is said here."""
        said = text.replace("127.0.0.1:7600", self.address).replace("127.0.0.1:7700", self.orders_address)
        return said.replace("/home/you/.local/share/watchword", str(self.data_dir))

    def compiled(self, block: Block) -> dict[str, Any]:
        """A python block's names."""
        names: dict[str, Any] = {}
        exec(compile(self.here(block.text), README, "exec"), names)
        return names


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clone]:
    with tempfile.TemporaryDirectory(prefix="wwr") as folder:
        made = Clone(Path(folder))
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(made.folder / "examples"))
        yield made


def first_words(server: subprocess.Popen[str], last: str) -> str:
    """What the server says, through the line that contains `last`."""
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        if last in line:
            return said
    raise AssertionError(said)


@pytest.mark.timeout(START_SECONDS_MAX + 60)
async def test_the_five_minutes_word_for_word(clone: Clone) -> None:
    followed = list(blocks(README))
    shown = {at: after.text for at, after in enumerate(followed[1:]) if after.language == "text"}
    python = [block for block in followed if block.language == "python"]
    assert [block.language for block in followed] == (
        ["sh", "text", "sh", "text", "sh", "text", "proto", "sh", "python", "python", "sh", "text", "python"]
    )
    assert followed[0].text == "make run\n"
    server = clone.run()
    try:
        expected = plain(clone.here(shown[0]))
        said = await asyncio.to_thread(first_words, server, "Ctrl-C stops it")
        # On another port the server adds to each command how to reach it.
        said = said.replace(f" --address {clone.address}", "")
        assert plain(said)[-len(expected) :] == expected
        serving: asyncio.Task[None] | None = None
        for at, block in enumerate(followed[1:-1], 1):
            if block.language == "sh":
                output = await asyncio.to_thread(clone.shell, block.text)
                if at in shown:
                    assert plain(output) == plain(shown[at])
            elif block is python[0]:
                serving = asyncio.create_task(clone.compiled(block)["serve"]())
            elif block is python[1]:
                response = await clone.compiled(block)["call"]()
                assert response.order.seen_by == "alice"
        assert serving is not None
        assert not serving.done()
        refused = clone.compiled(python[1])["call"]()
        with pytest.raises(Exception, match="the token is not active"):
            await refused
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    finally:
        server.terminate()
        server.communicate(timeout=60)


async def test_the_test_of_the_readme_passes(clone: Clone) -> None:
    last = [block for block in blocks(README) if block.language == "python"][-1]
    await clone.compiled(last)["test_get_order_needs_orders_read"]()


def test_the_annotation_shown_is_the_examples_own() -> None:
    shown = next(block.text for block in blocks(README) if block.language == "proto")
    proto = (ROOT / "examples/orders/v1/orders.proto").read_text()
    assert all(line.strip() in proto for line in shown.splitlines())
