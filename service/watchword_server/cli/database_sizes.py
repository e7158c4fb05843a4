"""The sizes of `watchword db status`, as rows for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from watchword_server.cli.durations import format_duration

if TYPE_CHECKING:
    from watchword_server.store.partitions import AttachedPartition
    from watchword_server.store.purge import Retention
    from watchword_server.store.sizes import TableSize

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def sizes_json(tables: Sequence[TableSize], retention: Retention, now: datetime) -> dict[str, object]:
    """The fields `tables` and `size_bytes`."""
    return {
        "tables": [
            {
                "name": table.name,
                "rows_estimate": table.rows_estimate,
                "size_bytes": table.size_bytes,
                "partitions": [
                    {
                        "name": part.partition.name,
                        "rows_estimate": part.rows_estimate,
                        "size_bytes": part.size_bytes,
                        "begins_at": _instant(part.partition.begins_at),
                        "ends_at": _instant(part.partition.ends_at),
                        "due_at": _instant(due_at := retention.due_at(part.partition)),
                        "due": due_at is not None and due_at <= now,
                        "by_hand": not part.partition.made_by_server,
                    }
                    for part in table.partitions
                ],
            }
            for table in tables
        ],
        "size_bytes": sum(table.size_bytes for table in tables),
    }


def sizes_rows(tables: Sequence[TableSize], retention: Retention, now: datetime) -> Iterator[tuple[str, ...]]:
    """A row for each table, those of its partitions below it, and the sum."""
    for table in tables:
        yield table.name, str(table.rows_estimate), format_bytes(table.size_bytes), "", "", ""
        for part in table.partitions:
            one = part.partition
            yield (
                f"  {one.name}",
                str(part.rows_estimate),
                format_bytes(part.size_bytes),
                "" if one.begins_at is None else f"{one.begins_at:%Y-%m-%d}",
                "" if one.ends_at is None else _until(one.ends_at, now),
                _due(one, retention, now),
            )
    yield "total", "", format_bytes(sum(table.size_bytes for table in tables)), "", "", ""


def _until(ends_at: datetime, now: datetime) -> str:
    ago = f" ({format_duration(now - ends_at)} ago)" if ends_at < now else ""
    return f"{ends_at:%Y-%m-%d}{ago}"


def _due(partition: AttachedPartition, retention: Retention, now: datetime) -> str:
    due_at = retention.due_at(partition)
    if due_at is None:
        return "never: it has no end"
    if due_at > now:
        return f"{due_at:%Y-%m-%d}"
    since = format_duration(max(now - due_at, timedelta(minutes=1)))
    return f"due for {since}" if partition.made_by_server else f"due for {since}: drop it by hand"


def format_bytes(count: int) -> str:
    """`17.3 MiB`."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
