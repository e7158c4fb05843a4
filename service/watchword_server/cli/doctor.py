"""`watchword doctor`: is this deployment in order, and if not, how is it mended?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from watchword_server.cli.connect import endpoint
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.health import check_health
from watchword_server.cli.local import read_settings, server_side
from watchword_server.cli.options import (
    CaFileOption,
    CertificateFileOption,
    KeyFileOption,
    OutputOption,
    ServerNameOption,
)
from watchword_server.cli.output import Column, Output, OutputFormat

if TYPE_CHECKING:
    from watchword_server.doctor import Finding
    from watchword_server.settings import Settings

_MARKS: Final = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


def doctor(
    output: OutputOption = OutputFormat.TABLE,
    address: Annotated[
        str | None,
        typer.Option(envvar="WATCHWORD_ADDRESS", help="Where the server should answer. Default: where it listens."),
    ] = None,
    ca_file: CaFileOption = None,
    certificate_file: CertificateFileOption = None,
    key_file: KeyFileOption = None,
    server_name: ServerNameOption = None,
) -> None:
    """Check database, migrations, keyring, clock, replication, partitions, TLS, administrators, leases and the server.

    Run it where the server runs, with the server's settings. Changes nothing. Exit code 1 if any check fails.
    """
    writer = Output(output)
    with server_side("doctor"):
        from watchword_server.doctor import examine

        settings = read_settings()
        findings = [
            *asyncio.run(examine(settings)),
            _server(settings, address, ca_file, certificate_file, key_file, server_name),
        ]
    _show(writer, findings)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(ExitCode.NO)


def _server(
    settings: Settings,
    address: str | None,
    ca_file: Path | None,
    certificate_file: Path | None,
    key_file: Path | None,
    server_name: str | None,
) -> Finding:
    from watchword_server.doctor import Finding

    target = endpoint(
        address or _own_address(settings.listen),
        tls=settings.tls and address is None,
        ca_file=ca_file,
        certificate_file=certificate_file,
        key_file=key_file,
        server_name=server_name,
        # Health needs no token: nothing secret goes over this channel.
        allow_plaintext_on_network_danger=address is None
        and not (settings.tls or ca_file or certificate_file or key_file or server_name),
    )
    try:
        status = check_health(target)
    except CommandError as error:
        # Not running yet is a state, unless someone named the address where it should.
        return Finding("server", "warn" if address is None else "fail", error.message, error.remedy)
    if status == "SERVING":
        return Finding("server", "ok", f"answers at {target.address}")
    return Finding(
        "server",
        "fail",
        f"the server at {target.address} says {status}",
        "It runs but cannot serve: mend what fails above, and see its log.",
    )


def _own_address(listen: str) -> str:
    for everywhere, here in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if listen.startswith(everywhere):
            return here + listen.removeprefix(everywhere)
    return listen


def _show(output: Output, findings: list[Finding]) -> None:
    if output.is_json:
        output.json(
            {
                "findings": [
                    {"check": one.check, "status": one.status, "message": one.message, "remedy": one.remedy}
                    for one in findings
                ]
            }
        )
        return
    output.table(
        [Column("check", whole=True), Column("", whole=True), Column("finding")],
        [
            (one.check, _MARKS[one.status], one.message + (f" -> {one.remedy}" if one.remedy else ""))
            for one in findings
        ],
    )
