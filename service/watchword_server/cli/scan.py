"""`watchword scan`: finds leaked tokens in files and in git's history, and ends them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from watchword.token import PREFIX_DEFAULT
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.options import WAIT_DEFAULT, Connection, NoWaitOption, WaitOption
from watchword_server.cli.propagation import check_wait
from watchword_server.cli.scan_report import Report, progress_on
from watchword_server.cli.scan_revoke import revoke_found


def scan(
    connection: Connection,
    *,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files and folders; - is standard input.", show_default=False)
    ],
    history: Annotated[
        bool, typer.Option("--history", help="Also all that any ref of the git repositories reaches.")
    ] = False,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            envvar="WATCHWORD_TOKEN_PREFIX",
            help=f"Of the tokens to find; {PREFIX_DEFAULT} if not given. Repeat.",
            show_default=False,
        ),
    ] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Revoke what is found, with the reason LEAKED. Needs a server.")
    ] = False,
    wait: WaitOption = WAIT_DEFAULT,  # type: ignore[assignment]  # the parser reads defaults too
    no_wait: NoWaitOption = False,
) -> None:
    """Find leaked tokens, by prefix and checksum: exit code 1 if there are any, 0 if not, 78 if not all was readable.

    In a git work tree it reads tracked files and untracked ones that are not ignored, elsewhere every file; a file that
    is named, always. Prints ids, never secrets. Without --revoke it needs no server, no token and no network.

    It does not look at the names of files, into compressed archives, or behind encodings such as base64.
    """
    from watchword_server.scan.find import scan as find
    from watchword_server.scan.git import GitError
    from watchword_server.scan.search import Searcher

    check_wait(wait)
    prefixes = prefix or [PREFIX_DEFAULT]
    try:
        searcher = Searcher(prefixes)
    except ValueError as error:
        raise CommandError(str(error), "Correct --prefix.", ExitCode.USAGE) from None
    report = Report(connection.output, prefixes)
    with ExitStack() as stack:
        # Before the scan: that there is no token to call with should not be learnt after it.
        session = stack.enter_context(connection.session()) if revoke else None
        try:
            with progress_on(connection.output) as progress:
                scanned = find(paths, searcher, progress, history=history)
        except GitError as error:
            raise CommandError(
                report.masked(str(error)),
                "Mend that. Files that are named themselves are read without asking git, unless with --history.",
                ExitCode.CONFIGURATION,
                "GIT_FAILED",
            ) from None
        ended = None
        if session is not None and scanned.findings:
            ended = revoke_found(session, scanned.findings, wait, no_wait=no_wait)
        report.show(scanned, ended)
    if ended is not None:
        if ended.error is not None:
            raise ended.error
        if ended.is_pending and not no_wait:
            raise typer.Exit(ExitCode.PENDING)
    if scanned.findings:
        raise typer.Exit(ExitCode.NO)
    if scanned.unreadable:
        raise report.incomplete(scanned)
