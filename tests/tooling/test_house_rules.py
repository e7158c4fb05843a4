"""Mistakes that were made once, here or elsewhere, and that no linter knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.tooling.rules import (
    composed_sql,
    foreign_imports,
    is_too_long,
    sleeps,
    unawaited_aborts,
)
from tests.tooling.sources import Source, sources

OURS = ("service", "clients/python", "tests", "bench", "examples")

# Files that may send composed SQL, each with why nothing a caller sends can reach the text.
SQL_EXEMPT: dict[str, str] = {}

# Files that may be longer, each with why it is better whole.
LENGTH_EXEMPT: dict[str, str] = {}


def test_every_abort_in_async_code_is_awaited() -> None:
    """An abort that is not awaited lets the handler go on, and the client is told OK."""
    assert [offence for source in sources(*OURS) for offence in unawaited_aborts(source)] == []


def test_no_test_sleeps() -> None:
    assert [offence for source in sources("tests") for offence in sleeps(source)] == []


def test_no_sql_is_composed_from_strings() -> None:
    """Values travel as parameters. Identifiers are built in exempt files only, out of nothing that callers send."""
    offences = [o for source in sources("service") for o in composed_sql(source)]
    assert [offence for offence in offences if offence.rpartition(":")[0] not in SQL_EXEMPT] == []


def test_client_library_imports_only_what_its_base_install_has() -> None:
    assert [offence for source in sources("clients/python") for offence in foreign_imports(source)] == []


def test_modules_fit_the_mind() -> None:
    assert [s.name for s in sources(*OURS) if is_too_long(s) and s.name not in LENGTH_EXEMPT] == []


def test_exemptions_are_needed() -> None:
    """An exemption outlives its reason unless something asks."""
    named = {source.name: source for source in sources(*OURS)}
    assert [name for name in SQL_EXEMPT if name not in named or not composed_sql(named[name])] == []
    assert [name for name in LENGTH_EXEMPT if name not in named or not is_too_long(named[name])] == []


BROKEN: list[tuple[Callable[[Source], list[str]], str]] = [
    (unawaited_aborts, "async def handler(request, context):\n    context.abort(1, 'no')\n"),
    (
        unawaited_aborts,
        "async def handler(request, context):\n    if request:\n        return context.abort(1, 'no')\n",
    ),
    (sleeps, "import time\ntime.sleep(1)\n"),
    (sleeps, "import asyncio\nasync def wait():\n    await asyncio.sleep(0.1)\n"),
    (sleeps, "from time import sleep as rest\nrest(1)\n"),
    (composed_sql, "async def find(pool, name):\n    await pool.fetch(f'select {name}')\n"),
    (composed_sql, "async def find(pool, name):\n    await pool.execute('select %s' % name)\n"),
    (composed_sql, "async def find(pool, name):\n    await pool.fetchrow('select {}'.format(name))\n"),
    (foreign_imports, "import structlog\n"),
    (foreign_imports, "from watchword_server.rules import tokens\n"),
]

SOUND: list[tuple[Callable[[Source], list[str]], str]] = [
    (unawaited_aborts, "async def handler(request, context):\n    await context.abort(1, 'no')\n"),
    (unawaited_aborts, "def handler(request, context):\n    context.abort(1, 'no')\n"),
    (sleeps, "import asyncio\nasync def step():\n    await asyncio.sleep(0)\n"),
    (composed_sql, "async def find(pool, name):\n    await pool.fetch('select $1::text', name)\n"),
    (foreign_imports, "import asyncio\nimport grpc.aio\nfrom google.rpc import status_pb2\nfrom . import token\n"),
]


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_rule_finds_what_breaks_it(rule: Callable[[Source], list[str]], text: str) -> None:
    assert len(rule(Source("broken.py", text))) == 1


@pytest.mark.parametrize(("rule", "text"), SOUND)
def test_rule_leaves_sound_code_alone(rule: Callable[[Source], list[str]], text: str) -> None:
    assert rule(Source("sound.py", text)) == []
