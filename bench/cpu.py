"""CPU time of whole process trees, in nanoseconds.

Wall time on a shared machine measures the neighbours; CPU time measures us. `/proc/<pid>/stat` counts in ticks of
10 ms, which is too coarse for a round of a second, so live processes are read through their POSIX CPU clocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import psutil


def _own_ns(pid: int) -> int:
    # clock_getcpuclockid(3) for another process: Linux's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
    return time.clock_gettime_ns((~pid << 3) | 2)


def _tree(root: psutil.Process, without: int | None) -> Iterator[psutil.Process]:
    if root.pid == without:
        return
    yield root
    with suppress(psutil.NoSuchProcess):
        for child in root.children():
            yield from _tree(child, without)


def tree_cpu_ns(pid: int, without: int | None = None) -> int:
    """CPU used so far by a process, its living descendants and those they have reaped.

    `without` leaves out one descendant with all of its own: a Postgres that the server started is counted by itself.
    Raises psutil.NoSuchProcess when the process is gone.
    """
    total = 0
    for process in _tree(psutil.Process(pid), without):
        # One that ends between being listed and being read has moved into its parent's reaped time, or is missed once.
        with suppress(psutil.NoSuchProcess, OSError):
            times = process.cpu_times()
            total += _own_ns(process.pid) + int((times.children_user + times.children_system) * 1e9)
    return total
