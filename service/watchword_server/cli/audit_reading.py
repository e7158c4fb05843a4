"""Reads what `audit export` or `audit list --output json` wrote: which tokens were revoked, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from watchword.token import parse_token_id
from watchword_server.cli.audit_events import ALLOWED
from watchword_server.cli.errors import CommandError, ExitCode

_STDIN: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Export:
    """The revocations of an export. `whole` is False where the list went on beyond what was exported."""

    ended: list[tuple[UUID, str]]
    whole: bool


def read_export(path: Path) -> Export:
    """Reads the export in `path`, or on standard input for `-`: what one or several runs of the command wrote, or one
    event a line. Raises CommandError, which names the line, for anything else."""
    text = _text(path)
    ended: list[tuple[UUID, str]] = []
    whole = True
    for line, document in _documents(text, path):
        events = document.get("events", [document])
        if not isinstance(events, list):
            raise _broken(path, line, "`events` is no list")
        whole = whole and not document.get("next_page_token")
        for at, event in enumerate(events, start=1):
            try:
                ended += _ended(event)
            except (ValueError, TypeError, AttributeError, KeyError):
                raise _broken(path, line, f"event {at} from there is not one of the audit log") from None
    return Export(ended, whole)


def _text(path: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if path == _STDIN else path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", "Name the export.", ExitCode.USAGE) from None
    except UnicodeDecodeError as error:
        raise _broken(path, data.count(b"\n", 0, error.start) + 1, "that is not text") from None


def _documents(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each JSON object and the line it begins in."""
    decoder = json.JSONDecoder()
    at, line, counted = 0, 1, 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        line, counted = line + text.count("\n", counted, at), at
        try:
            document, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _broken(path, error.lineno, f"{error.msg}, column {error.colno}") from None
        except RecursionError:
            raise _broken(path, line, "it is nested too deeply") from None
        if not isinstance(document, dict):
            raise _broken(path, line, "that is no JSON object")
        yield line, document


def _ended(event: dict[str, Any]) -> list[tuple[UUID, str]]:
    """The token that a revocation ended. One that names a token and ended nothing, since the secret was wrong, the
    token out of reach, or the caller not allowed to, must not end it now."""
    details = event["details"]
    denied = event.get("outcome") not in (None, "", ALLOWED)
    if event["action"] != "revoke" or denied or not event["token_id"] or details.get("count") == "0":
        return []
    return [(parse_token_id(event["token_id"]), str(details.get("reason", "")))]


def _broken(path: Path, line: int, why: str) -> CommandError:
    return CommandError(
        f"{'standard input' if path == _STDIN else path}, line {line}: {why}. Nothing was done",
        "Give what `watchword audit export` wrote.",
        ExitCode.USAGE,
        "EXPORT_INVALID",
    )
