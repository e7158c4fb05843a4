"""What a scan says: places and ids, and a bar while it runs. No secret: not in a finding, not in a file's name."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from watchword.logs import MaskTokens
from watchword.token import expires_at_ms, format_token_id
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Column, Output, message_json
from watchword_server.cli.scan_revoke import Ended

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from watchword_server.scan.find import Finding, Progress, Scanned

_OBJECT_ID_SHOWN: Final = 12
_STEP_BYTES: Final = 1 << 22
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# An id has room for instants that no calendar here reaches.
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class Report:
    """Writes what was found to `output`."""

    def __init__(self, output: Output, prefixes: Sequence[str]) -> None:
        self._output = output
        self._maskers = [MaskTokens(prefix) for prefix in prefixes]

    def masked(self, text: str) -> str:
        """`text` without the secrets of tokens in it: they stand in names of files too."""
        for masker in self._maskers:
            text = masker.mask(text)
        return text

    def show(self, scanned: Scanned, ended: Ended | None) -> None:
        """All of it."""
        if self._output.is_json:
            self._output.json(self._json(scanned, ended))
            return
        if scanned.findings:
            self._table(scanned, ended)
        for path, why in scanned.unreadable.items():
            self._output.note(f"Not read: {self.masked(path)}: {why}")
        tokens = len({finding.token for finding in scanned.findings})
        found = f"{tokens} token{'s' * (tokens != 1)}" if tokens else "No token"
        objects = f" and {scanned.objects_count} objects of git's history" if scanned.objects_count else ""
        read = f"{scanned.files_count} file{'s' * (scanned.files_count != 1)}{objects}"
        self._output.note(f"{found} in {read} ({scanned.bytes_count / 1e6:.1f} MB).")
        for token, successor_id in ended.successors.items() if ended is not None else ():
            token_id = format_token_id(token.token_id)
            self._output.note(
                f"{token_id} was rotated; its successor {successor_id} was not found here, and lives on with the same"
                f" rights. If it may have leaked too: watchword revoke --id {token_id} --cascade --reason LEAKED"
            )
        if tokens and ended is None:
            self._output.note("Revoke them: the same with --revoke, or watchword revoke --id ID --reason LEAKED")

    def incomplete(self, scanned: Scanned) -> CommandError:
        """For a scan that found nothing where not everything was read."""
        named = "; ".join(f"{self.masked(path)}: {why}" for path, why in scanned.unreadable.items())
        return CommandError(
            f"nothing was found, but not all could be read: {named}",
            "Scan again as someone who may read it, with all of it there.",
            ExitCode.CONFIGURATION,
            "FILE_UNREADABLE",
        )

    def _table(self, scanned: Scanned, ended: Ended | None) -> None:
        columns = [Column("where", whole=True), Column("token_id", whole=True), Column("ends by")]
        if scanned.objects_count:
            columns.append(Column("in history"))
        if ended is not None:
            columns.append(Column("was"))

        def row(finding: Finding) -> Iterator[str]:
            yield f"{self.masked(finding.path)}:{finding.line}"
            yield format_token_id(finding.token.token_id)
            yield _ends_by(finding)
            if scanned.objects_count:
                yield finding.object_id[:_OBJECT_ID_SHOWN]
            if ended is not None:
                was_live = ended.was_live.get(finding.token)
                yield "unknown" if was_live is None else "live" if was_live else "not live"

        self._output.table(columns, (tuple(row(finding)) for finding in scanned.findings))
        if ended is not None and ended.reached:
            self._output.record(
                [("revoked", str(sum(ended.was_live.values()))), ("propagation", ended.reached)],
            )

    def _json(self, scanned: Scanned, ended: Ended | None) -> dict[str, object]:
        findings = [
            {
                "path": self.masked(finding.path),
                "line": finding.line,
                "object_id": finding.object_id,
                "token_id": format_token_id(finding.token.token_id),
                "expires_by": _ends_by(finding),
                **({} if ended is None else _became(finding, ended)),
            }
            for finding in scanned.findings
        ]
        answer: dict[str, object] = {
            "findings": findings,
            "unreadable": [{"path": self.masked(path), "error": why} for path, why in scanned.unreadable.items()],
            "files_count": scanned.files_count,
            "objects_count": scanned.objects_count,
            "bytes_count": scanned.bytes_count,
        }
        if ended is None:
            return answer
        fleet = {} if ended.response is None else message_json(ended.response)
        return (
            answer
            | fleet
            | {
                "revoked_count": sum(ended.was_live.values()),
                "elapsed_seconds": round(ended.elapsed_seconds, 6),
            }
        )


def _became(finding: Finding, ended: Ended) -> dict[str, object]:
    return {
        "was_live": ended.was_live.get(finding.token),
        "live_successor_id": ended.successors.get(finding.token, ""),
    }


def _ends_by(finding: Finding) -> str:
    """When the token ends at the latest: its id says so."""
    limit = timedelta(milliseconds=expires_at_ms(finding.token.token_id))
    return (_EPOCH + min(limit, _LAST - _EPOCH)).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def progress_on(output: Output) -> Iterator[Progress]:
    """A bar on standard error while the block runs, if people look at it."""
    if output.is_json or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("Scanning {task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Shown(bar)


class _Silent:
    def begin(self, what: str, total_bytes: int) -> None:
        pass

    def advance(self, count_bytes: int) -> None:
        pass


class _Shown:
    """Moves the bar every few megabytes: it costs more than a small file."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._unshown_bytes = 0
        self._task = bar.add_task("", total=None, visible=False)

    def begin(self, what: str, total_bytes: int) -> None:
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total_bytes or None)
        self._unshown_bytes = 0

    def advance(self, count_bytes: int) -> None:
        self._unshown_bytes += count_bytes
        if self._unshown_bytes >= _STEP_BYTES:
            self._bar.advance(self._task, self._unshown_bytes)
            self._unshown_bytes = 0
