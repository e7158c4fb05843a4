"""The whole command line in one place: every command's name and the function behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from watchword_server.cli import (
    audit,
    audit_export,
    audit_tail,
    bootstrap,
    database,
    doctor,
    issue,
    keyring,
    keyring_drop,
    narrow,
    restored,
    revoke,
    rotate,
    scan,
    scopes,
    serve,
    subjects,
    token_scopes,
    tokens,
    validate,
    watchers,
    whoami,
)
from watchword_server.cli.options import perhaps_remote, remote

_OPERATE: Final = "Operate the server"
_EPILOG: Final = (
    "Exit codes: 0 done or active, 1 the answer is no, 2 usage, 3 unavailable, 4 nothing matched, 5 denied, "
    "6 conflict, 7 done but pending, 70 defect, 78 configuration."
)


def build() -> typer.Typer:
    """The program, ready to be called with arguments."""
    settings = {"help_option_names": ["-h", "--help"]}
    program = typer.Typer(
        name="watchword",
        help="Issue, check and revoke bearer tokens for gRPC services.",
        epilog=_EPILOG,
        no_args_is_help=True,
        # A traceback with locals would print secrets.
        pretty_exceptions_enable=False,
        context_settings=settings,
    )
    program.callback()(_options)
    _command(program, "issue", remote(issue.issue))
    _command(program, "validate", remote(validate.validate))
    _command(program, "revoke", remote(revoke.revoke))
    _command(program, "rotate", remote(rotate.rotate))
    _command(program, "whoami", remote(whoami.whoami))
    _group(
        program,
        "tokens",
        "Tokens' records, and what they need no more.",
        list=remote(tokens.list_tokens),
        show=remote(tokens.show),
        scopes=remote(token_scopes.token_scopes),
        narrow=remote(narrow.narrow),
    )
    _group(
        program,
        "subjects",
        "For whom nothing can be issued.",
        block=remote(subjects.block),
        unblock=remote(subjects.unblock),
        list=remote(subjects.list_blocked),
    )
    _group(
        program,
        "scopes",
        "The catalogue of scopes.",
        list=remote(scopes.list_scopes),
        register=remote(scopes.register),
    )
    _group(
        program,
        "audit",
        "Who did what, and what was denied.",
        list=remote(audit.list_events),
        tail=remote(audit_tail.tail),
        export=remote(audit_export.export),
    )
    _command(program, "watchers", remote(watchers.watchers))
    _command(program, "scan", perhaps_remote(scan.scan))
    _command(program, "serve", serve.serve, _OPERATE)
    _command(program, "bootstrap", bootstrap.bootstrap, _OPERATE)
    _command(program, "doctor", doctor.doctor, _OPERATE)
    _group(
        program,
        "db",
        "The database: its schema, and what a restore needs.",
        _OPERATE,
        upgrade=database.upgrade,
        status=database.status,
        restored=restored.restored,
    )
    _group(
        program,
        "keyring",
        "The keys that tokens are hashed with.",
        _OPERATE,
        **{
            "new": keyring.new,
            "add-version": keyring.add_version,
            "make-current": keyring.make_current,
            "drop-version": keyring_drop.drop_version,
            "show-versions": keyring.show_versions,
        },
    )
    return program


def _command(program: typer.Typer, name: str, function: Callable[..., None], panel: str | None = None) -> None:
    # Below the first paragraph Typer would break lines where the source does.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    program.command(name, help=text, rich_help_panel=panel)(function)


def _group(program: typer.Typer, name: str, description: str, panel: str | None = None, **commands: Any) -> None:
    group = typer.Typer(help=description, no_args_is_help=True)
    for command_name, function in commands.items():
        _command(group, command_name, function)
    program.add_typer(group, name=name, rich_help_panel=panel)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"watchword {version('watchword')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
