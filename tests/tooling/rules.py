"""House rules as pure functions from a file to its offences, so that each is itself tested on code that breaks it."""

from __future__ import annotations

import ast
import sys

from tests.tooling.sources import Source

LINES_MAX = 400
SLEEPERS = {("time", "sleep"), ("asyncio", "sleep"), ("anyio", "sleep")}
# Where a statement's text goes: asyncpg's and psycopg's methods.
SQL_METHODS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "prepare", "cursor", "copy_from_query"}
CLIENT_MAY_IMPORT = {"grpc", "google", "watchword"} | sys.stdlib_module_names


def unawaited_aborts(source: Source) -> list[str]:
    """Calls of `context.abort` in async code whose coroutine nobody awaits: the handler would go on, and answer OK.

    A bare call in a plain function is the thread-pool server's, where `abort` raises at once.
    """
    found = []
    for function in ast.walk(source.tree):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        body = list(_own_nodes(function))
        awaited = {id(node.value) for node in body if isinstance(node, ast.Await)}
        # `return context.abort(...)` hands the coroutine to whoever awaits this function's result: still wrong here.
        found += [
            source.at(node)
            for node in body
            if isinstance(node, ast.Call) and _is_abort(node.func) and id(node) not in awaited
        ]
    return found


def sleeps(source: Source) -> list[str]:
    """Waits for a time to pass, under whatever name they were imported."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in SLEEPERS
    }
    found = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name), args=args):
                # `asyncio.sleep(0)` waits for no time: it lets the other tasks run.
                yields = bool(args) and isinstance(args[0], ast.Constant) and args[0].value == 0
                if (module, name) in SLEEPERS and not yields:
                    found.append(source.at(node))
            case ast.Call(func=ast.Name(id=name)) if name in aliases:
                found.append(source.at(node))
    return found


def composed_sql(source: Source) -> list[str]:
    """Statements put together from strings where they are sent: f-strings, `%`, `+` and `.format`."""
    return [
        source.at(node)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SQL_METHODS
        and node.args
        and _is_composed(node.args[0])
    ]


def foreign_imports(source: Source) -> list[str]:
    """Imports that the base install of the client library does not have."""
    found = []
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        found += [
            f"{source.at(node)} imports {module}" for module in modules if module.split(".")[0] not in CLIENT_MAY_IMPORT
        ]
    return found


def is_too_long(source: Source) -> bool:
    return source.text.count("\n") > LINES_MAX


def _own_nodes(function: ast.AsyncFunctionDef) -> list[ast.AST]:
    """The function's nodes without those of functions inside it, which answer for themselves."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _is_abort(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr in {"abort", "abort_with_status"}


def _is_composed(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr(values=values):
            return any(isinstance(value, ast.FormattedValue) for value in values)
        case ast.BinOp(op=ast.Mod() | ast.Add()):
            return True
        case ast.Call(func=ast.Attribute(attr="format" | "replace" | "join")):
            return True
    return False
