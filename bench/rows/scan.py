"""scan_mb_per_second: how fast a search for leaked tokens reads, on one core."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.stage import Plan, Stage
from watchword.token import PREFIX_DEFAULT, new_token, new_token_id
from watchword_server.scan.find import scan
from watchword_server.scan.search import Searcher

_LARGE_COUNT: Final = 8
_SMALL_BYTES: Final = 16 * 1024
"""Of one file of a source tree, about."""
_MEGABYTE: Final = 1_000_000


class _Quiet:
    """Nobody looks on."""

    def begin(self, what: str, total_bytes: int) -> None:
        """See Progress."""

    def advance(self, count_bytes: int) -> None:
        """See Progress."""


def _source_text() -> bytes:
    """This project's own source: text as it stands in repositories."""
    return b"".join(path.read_bytes() for path in sorted(Path("service").rglob("*.py")))


def _write(folder: Path, size_bytes: int, count: int, text: bytes) -> int:
    """So many files with a token at the end of each; how many bytes."""
    folder.mkdir()
    body = (text * (size_bytes // len(text) + 1))[:size_bytes]
    for number in range(count):
        token = new_token(new_token_id(time.time_ns() // 1_000_000))
        (folder / f"{number}.py").write_bytes(body + b"\n" + token.text + b"\n")
    return sum(path.stat().st_size for path in folder.iterdir())


def _rate(folder: Path, files_count: int, bytes_count: int) -> float:
    """Bytes read per second of this process's CPU, in MB."""
    searcher = Searcher([PREFIX_DEFAULT])
    began = time.process_time()
    scanned = scan([str(folder)], searcher, _Quiet(), history=False)
    took = time.process_time() - began
    if len(scanned.findings) != files_count or scanned.bytes_count != bytes_count:
        raise MeasurementError(f"{len(scanned.findings)} of {files_count} tokens were found")
    return bytes_count / took / _MEGABYTE


def measure(stage: Stage) -> list[Figure]:
    """A tree of small files, as repositories have them; beside it a few large ones."""
    plan: Plan = stage.plan
    with tempfile.TemporaryDirectory(prefix="wwscan") as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        text = _source_text()
        small_count = max(1, plan.scan_bytes // _SMALL_BYTES)
        small_bytes = _write(small, _SMALL_BYTES, small_count, text)
        large_bytes = _write(large, plan.scan_bytes // _LARGE_COUNT, _LARGE_COUNT, text)
        pairs = interleaved(
            plan.rounds,
            lambda _: _rate(small, small_count, small_bytes),
            lambda _: _rate(large, _LARGE_COUNT, large_bytes),
        )
    baseline = {
        "small_files": small_count,
        "small_file_bytes": _SMALL_BYTES,
        "large_files_mb_per_second": median(of_large for _, of_large in pairs),
        "large_file_bytes": plan.scan_bytes // _LARGE_COUNT,
    }
    rates = [of_small for of_small, _ in pairs]
    return [figure_of_rounds("scan_mb_per_second", rates, "MB/s", Goal(">=", 200), baseline)]
