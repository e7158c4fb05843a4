"""Reads what `audit export` or `audit list --output json` wrote: what was taken away, and from whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from watchword.token import parse_token_id
from watchword_server.cli.audit_events import ALLOWED
from watchword_server.cli.errors import CommandError, ExitCode

_STDIN: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Export:
    """What an export says was taken away. `whole` is False where the list went on beyond what was exported."""

    whole: bool = True
    ended: list[tuple[UUID, str]] = field(default_factory=list)
    """Revoked tokens, and why."""
    losses: list[tuple[UUID, tuple[str, ...], datetime | None]] = field(default_factory=list)
    """Scopes that narrowings took from tokens, and ends that those and rotations set."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Subjects that were blocked last, and why."""


def read_export(path: Path) -> Export:
    """Reads the export in `path`, or on standard input for `-`: what one or several runs of the command wrote, or one
    event a line. Raises CommandError, which names the line, for anything else."""
    text = _text(path)
    export = Export()
    blocks: dict[str, tuple[datetime, str | None]] = {}
    for line, document in _documents(text, path):
        events = document.get("events", [document])
        if not isinstance(events, list):
            raise _broken(path, line, "`events` is no list")
        if document.get("next_page_token"):
            export = replace(export, whole=False)
        for at, event in enumerate(events, start=1):
            try:
                if not _denied(event):
                    export.ended.extend(_ended(event))
                    export.losses.extend(_losses(event))
                    _note_block(event, blocks)
            except (ValueError, TypeError, AttributeError, KeyError):
                raise _broken(path, line, f"event {at} from there is not one of the audit log") from None
    export.blocked.update((subject, reason) for subject, (_, reason) in blocks.items() if reason is not None)
    return export


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


def _denied(event: dict[str, Any]) -> bool:
    """Whoever was not allowed to took nothing away, and nothing is to be taken away now."""
    return event.get("outcome") not in (None, "", ALLOWED)


def _ended(event: dict[str, Any]) -> Iterator[tuple[UUID, str]]:
    """The token that a revocation ended. One that names a token and ended nothing, since the secret was wrong or the
    token out of reach, must not end it now."""
    details = event["details"]
    if event["action"] == "revoke" and event["token_id"] and details.get("count") != "0":
        yield parse_token_id(event["token_id"]), str(details.get("reason", ""))


def _losses(event: dict[str, Any]) -> Iterator[tuple[UUID, tuple[str, ...], datetime | None]]:
    """What a token lost by a narrowing, or by its rotation: a backup from before would give it back."""
    details = event["details"]
    ends_at = details.get("expires_at")
    if event["action"] == "rotation_ended":
        ends_at = event["occurred_at"]
    elif event["action"] not in ("narrow", "rotate"):
        return
    removed = tuple(str(details.get("removed_scopes", "")).split())
    yield parse_token_id(event["token_id"]), removed, None if ends_at is None else _instant(ends_at)


def _note_block(event: dict[str, Any], blocks: dict[str, tuple[datetime, str | None]]) -> None:
    """Keeps what was done last, in whatever order exports come."""
    if event["action"] not in ("block_subject", "unblock_subject"):
        return
    details, occurred_at = event["details"], _instant(event["occurred_at"])
    known = blocks.get(details["subject"])
    if known is None or occurred_at >= known[0]:
        reason = str(details.get("reason", "")) if event["action"] == "block_subject" else None
        blocks[details["subject"]] = (occurred_at, reason)


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("not an instant")
    return at


def _broken(path: Path, line: int, why: str) -> CommandError:
    return CommandError(
        f"{'standard input' if path == _STDIN else path}, line {line}: {why}. Nothing was done",
        "Give what `watchword audit export` wrote.",
        ExitCode.USAGE,
        "EXPORT_INVALID",
    )
