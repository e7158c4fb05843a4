"""The server's log: one event a line, JSON for programs or coloured for people, and masked as a whole.

Masking is the last step, on the finished line, so that it covers what a processor could miss: text of exceptions,
`repr`s, and what libraries log by themselves. The one thing it cannot reach is what gRPC's C core writes straight to
standard error (GRPC_VERBOSITY sets how much); it prints no metadata or messages below its tracing levels.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, Self, TextIO

import structlog

from watchword_server.observe.masking import Masker, url_secrets
from watchword_server.settings import Settings

LINE_CHARACTERS_MAX: Final = 32_768
_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_QUIET: Final = ("yoyo.migrations",)
"""Libraries whose `info` is about their own steps: they get `warning`, unless `debug` is asked for."""


class Logs:
    """The process's logging while the block runs; everything is put back afterwards.

    Modules log through `logging.getLogger(__name__)`, with `extra` where they want fields.
    """

    def __init__(
        self,
        *,
        form: Literal["auto", "json", "console"] = "auto",
        level: str = "info",
        masker: Masker,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = stream or sys.stderr
        self._level = _LEVELS[level]
        console = form == "console" or (form == "auto" and self._stream.isatty())
        self._handler = logging.StreamHandler(self._stream)
        self._handler.setFormatter(_MaskedFormatter(console=console, colors=self._stream.isatty(), masker=masker))

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._before = (list(root.handlers), root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
        root.handlers[:] = [self._handler]
        root.setLevel(self._level)
        self._quieted = {name: logging.getLogger(name).level for name in _QUIET} if self._level > logging.DEBUG else {}
        for name in self._quieted:
            logging.getLogger(name).setLevel(max(self._level, logging.WARNING))
        logging.captureWarnings(capture=True)
        # Errors nobody caught would otherwise be printed as they are.
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_in_thread
        sys.unraisablehook = _log_unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        logging.captureWarnings(capture=False)
        root.handlers[:], level, sys.excepthook, threading.excepthook, sys.unraisablehook = self._before
        root.setLevel(level)
        for name, quieted in self._quieted.items():
            logging.getLogger(name).setLevel(quieted)
        self._handler.flush()


def configured_logs(settings: Settings) -> Logs:
    """As the settings say. Tokens and the databases' passwords are kept out of it."""
    secrets = [
        secret
        for url in (settings.database_url, settings.migration_database_url)
        if url is not None
        for secret in url_secrets(url.get_secret_value())
    ]
    masker = Masker(token_prefix=settings.token_prefix, secrets=secrets)
    return Logs(form=settings.log_format, level=settings.log_level, masker=masker)


class _MaskedFormatter(structlog.stdlib.ProcessorFormatter):
    def __init__(self, *, console: bool, colors: bool, masker: Masker) -> None:
        renderer: Any = (
            # Plain tracebacks: the pretty ones show local variables, which is where the secrets are.
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
            if console
            else structlog.processors.JSONRenderer(default=repr)
        )
        processors: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
        if not console:
            processors.append(structlog.processors.format_exc_info)
        super().__init__(
            processors=[*processors, renderer],
            foreign_pre_chain=[*_shared_processors(), structlog.stdlib.ExtraAdder()],
        )
        self._masker = masker
        self._console = console

    def format(self, record: logging.LogRecord) -> str:
        line = self._masker(super().format(record))
        if len(line) <= LINE_CHARACTERS_MAX:
            return line
        # Cut after masking: a secret cut in half is not recognised. What is left of a JSON line becomes one again.
        start = line[:LINE_CHARACTERS_MAX]
        return f"{start} [cut]" if self._console else json.dumps({"event": "log line cut", "start": start})


def _shared_processors() -> list[Any]:
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("watchword").critical("uncaught error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _log_uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_value is not None:
        _log_uncaught(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
