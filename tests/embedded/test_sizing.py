"""How much memory the embedded PostgreSQL is given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from watchword_server.embedded.sizing import data_bytes, memory_bytes, shared_buffers_mb

GB = 1 << 30


@pytest.mark.parametrize(
    ("data", "memory", "expected_mb"),
    [
        pytest.param(0, 16 * GB, 128, id="an empty one gets the default"),
        pytest.param(2 * GB, 16 * GB, 3 * 1024, id="all of the data, and room to grow"),
        pytest.param(8 * GB, 16 * GB, 4 * 1024, id="a quarter of the memory at most"),
        pytest.param(8 * GB, GB // 4, 128, id="never less than the default"),
    ],
)
def test_it_holds_the_data_within_a_quarter_of_the_memory(data: int, memory: int, expected_mb: int) -> None:
    assert shared_buffers_mb(data, memory) == expected_mb


def test_the_log_of_writes_is_not_counted(tmp_path: Path) -> None:
    for name, size in (("base/5/1", 1000), ("base/6/2", 24), ("pg_wal/1", 5000)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    folders = sum(path.stat().st_size for path in (tmp_path / "base").iterdir())
    assert data_bytes(tmp_path) == 1024 + folders


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert data_bytes(tmp_path) == 0


def test_a_container_has_no_more_than_its_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = psutil.virtual_memory().total
    assert memory_bytes(limit) == machine
    limit.write_text("max\n")
    assert memory_bytes(limit) == machine
    limit.write_text(f"{machine // 2}\n")
    assert memory_bytes(limit) == machine // 2
