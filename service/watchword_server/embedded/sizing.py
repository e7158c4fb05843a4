"""How much memory PostgreSQL keeps its data in (`shared_buffers`).

Its default of 128 MB suits small databases. A larger one would be read through the kernel's cache page by page, which
more than doubles what a check costs it. PostgreSQL holds on to what it once used, so a small database is given little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

_MB: Final = 1 << 20
SHARED_BUFFERS_MB_MIN: Final = 128
_ROOM_TO_GROW: Final = 1.5
"""The size is chosen at a start, and the data grows until the next one."""
_MEMORY_SHARE_MAX: Final = 0.25
"""PostgreSQL's own advice; the kernel's cache needs the rest."""
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


def shared_buffers_mb(data_bytes: int, memory_bytes: int) -> int:
    """Room for the whole database, within a quarter of the memory; never below PostgreSQL's default."""
    wanted = min(data_bytes * _ROOM_TO_GROW, memory_bytes * _MEMORY_SHARE_MAX)
    return max(SHARED_BUFFERS_MB_MIN, int(wanted) // _MB)


def data_bytes(folder: Path) -> int:
    """What the databases in a PostgreSQL folder take, without the write-ahead log; 0 if it cannot be told."""
    total = 0
    try:
        for path in (folder / "base").rglob("*"):
            total += path.stat().st_size
    except OSError:
        return 0
    return total


def memory_bytes(cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """What this machine has, or what the container it runs in may use."""
    machine: int = psutil.virtual_memory().total
    try:
        return min(machine, int(cgroup_limit.read_text(encoding="ascii")))
    except (OSError, ValueError):
        # No limit: there is no such file, or it says "max".
        return machine
