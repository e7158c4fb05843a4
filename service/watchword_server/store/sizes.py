"""How large the tables are, partition by partition, for people who watch a disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from watchword_server.store.database import Connection
from watchword_server.store.partitions import AttachedPartition, attached, rows_with_bounds


@dataclass(frozen=True, slots=True)
class PartitionSize:
    """One partition with its indexes. `rows_estimate` is the statistics', and may be 0 before there are any."""

    partition: AttachedPartition
    rows_estimate: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """One table, with all of its partitions in order of their ends, where it has any."""

    name: str
    rows_estimate: int
    size_bytes: int
    partitions: Sequence[PartitionSize] = field(default=())


async def table_sizes(connection: Connection) -> list[TableSize]:
    """The largest first. Driver errors come out as they are."""
    plain: list[TableSize] = []
    divided: dict[str, list[PartitionSize]] = {}
    for row in await rows_with_bounds(connection, "sizes"):
        name, rows, size = row["table_name"], row["rows_estimate"], row["size_bytes"]
        if size is None:
            # Dropped while this was read.
            continue
        if row["partition_name"] is None:
            plain.append(TableSize(name, rows, size))
        else:
            partition = attached(name, row["partition_name"], row["bounds"])
            divided.setdefault(name, []).append(PartitionSize(partition, rows, size))
    whole = [
        TableSize(
            name,
            sum(part.rows_estimate for part in parts),
            sum(part.size_bytes for part in parts),
            sorted(parts, key=lambda part: part.partition.order),
        )
        for name, parts in divided.items()
    ]
    return sorted([*plain, *whole], key=attrgetter("size_bytes"), reverse=True)
