"""`watchword bootstrap`: the first administrator of an external database, from the server's own machine."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.local import read_settings, server_side
from watchword_server.cli.output import Output, OutputFormat
from watchword_server.data_folder import ADMIN_TOKEN_FILE


def bootstrap(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="The secret alone on stdout, and nothing in the data folder.")
    ] = False,
) -> None:
    """Make an administrator's token, if no live one exists, for issuing the named administrators.

    It goes into the data folder (admin-token, mode 0600), where this command line finds it. Refused while a live
    administrator exists.
    """
    output = Output(OutputFormat.TABLE)
    with server_side("bootstrap"):
        from watchword_server import admin
        from watchword_server.private_file import replace_private_file

        settings = read_settings()
        try:
            if quiet:
                output.line(asyncio.run(admin.bootstrap(settings)).secret)
                return
            path = settings.data_dir / ADMIN_TOKEN_FILE
            with replace_private_file(path) as write:
                write(asyncio.run(admin.bootstrap(settings)).secret + "\n")
        except admin.AdministratorExistsError as error:
            raise CommandError(
                str(error) or "there is a live administrator",
                "Use that administrator's token to issue others: watchword issue --scope 'watchword.*' ...",
                ExitCode.CONFLICT,
                "ADMINISTRATOR_EXISTS",
            ) from None
    output.note(
        f"The administrator's token is in {path}; the command line on this machine uses it by itself.\n"
        "Issue named administrators with it, and then revoke it."
    )
