"""From arguments to an exit code: the one place where errors become text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from watchword_server.cli.errors import BrokenOutputError, CommandError, ExitCode, missing_extra
from watchword_server.cli.local import server_side
from watchword_server.cli.output import Output, OutputFormat
from watchword_server.cli.secrets_input import refuse_tokens_in


def run(arguments: Sequence[str]) -> int:
    """Runs one command. Prints what there is to say; returns the exit code."""

    def command() -> int:
        refuse_tokens_in(arguments)
        return _invoke(arguments)

    return _reported(Output(_output_format(arguments)), command)


def run_worker() -> int:
    """Runs a worker of `watchword serve --workers`. Prints what there is to say; returns the exit code."""

    def command() -> int:
        with server_side("serve"):
            from watchword_server.worker import work

            work()
        return ExitCode.OK

    return _reported(Output(OutputFormat.TABLE), command)


def _reported(output: Output, command: Callable[[], int]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # Where the terminal's encoding lacks a character, write its escape instead of failing.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIO may be anything
    try:
        return command()
    except CommandError as error:
        with suppress(BrokenOutputError):
            output.error(error)
        return error.exit_code
    except BrokenOutputError:
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        output.error(_defect(error))
        return ExitCode.INTERNAL


def _invoke(arguments: Sequence[str]) -> int:
    try:
        from watchword_server.cli.program import build

        program = build()
    except ModuleNotFoundError as error:
        # An absent package is the user's to install; an absent module of ours is a defect.
        if error.name is None or error.name.startswith("watchword"):
            raise
        raise missing_extra("cli", arguments[0] if arguments else "", error.name) from None
    try:
        program(list(arguments), prog_name="watchword")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.OK if ended.code is None else ExitCode.INTERNAL
    return ExitCode.OK


def _output_format(arguments: Sequence[str]) -> OutputFormat:
    """How to write an error, also one that comes before or out of the parser's reading of the options."""
    chosen = os.environ.get("WATCHWORD_OUTPUT", "")
    for at, argument in enumerate(arguments):
        if argument in ("--output", "-o"):
            chosen = arguments[at + 1] if at + 1 < len(arguments) else chosen
        elif argument.startswith("--output="):
            chosen = argument.partition("=")[2]
    return OutputFormat.JSON if chosen == OutputFormat.JSON else OutputFormat.TABLE


def _defect(error: Exception) -> CommandError:
    """For what nobody foresaw. Its text may hold a secret, so only its kind and place are told."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return CommandError(
        f"a defect in the command line: {type(error).__name__} at {place}",
        "Please report it with the command you ran (never with a token).",
        ExitCode.INTERNAL,
        "DEFECT",
    )
