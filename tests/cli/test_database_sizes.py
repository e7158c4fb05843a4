"""`db status` says what each table and partition takes, and when it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from watchword_server.cli.database_sizes import format_bytes, sizes_json, sizes_rows
from watchword_server.store.partitions import AttachedPartition
from watchword_server.store.purge import Retention
from watchword_server.store.sizes import PartitionSize, TableSize

NOW = datetime(2027, 6, 1, 12, tzinfo=UTC)
KEPT = Retention.of_days(30, 400)


def part(name: str, begins_at: datetime | None, ends_at: datetime | None) -> PartitionSize:
    return PartitionSize(AttachedPartition("tokens", name, begins_at, ends_at), 10, 2048)


def month(number: int) -> datetime:
    return datetime(2027, number, 1, tzinfo=UTC)


TABLES = [
    TableSize(
        "tokens",
        40,
        8192,
        [
            part("january", month(1), month(2)),
            part("tokens_20270401", month(4), month(5)),
            part("tokens_20270601", month(6), month(7)),
            part("tokens_rest", None, None),
        ],
    ),
    TableSize("feed", 1, 100),
]


def test_people_see_what_is_due_and_for_how_long() -> None:
    assert list(sizes_rows(TABLES, KEPT, NOW)) == [
        ("tokens", "40", "8.0 KiB", "", "", ""),
        ("  january", "10", "2.0 KiB", "2027-01-01", "2027-02-01 (120d12h ago)", "due for 90d12h: drop it by hand"),
        ("  tokens_20270401", "10", "2.0 KiB", "2027-04-01", "2027-05-01 (31d12h ago)", "due for 1d12h"),
        ("  tokens_20270601", "10", "2.0 KiB", "2027-06-01", "2027-07-01", "2027-07-31"),
        ("  tokens_rest", "10", "2.0 KiB", "", "", "never: it has no end"),
        ("feed", "1", "100 B", "", "", ""),
        ("total", "", "8.1 KiB", "", "", ""),
    ]


def test_programs_see_bytes_and_instants() -> None:
    document = sizes_json(TABLES, KEPT, NOW)
    assert document["size_bytes"] == 8292
    tables = document["tables"]
    assert isinstance(tables, list)
    assert [one["due"] for one in tables[0]["partitions"]] == [True, True, False, False]
    assert [one["by_hand"] for one in tables[0]["partitions"]] == [True, False, False, True]
    assert tables[0]["partitions"][1] == {
        "name": "tokens_20270401",
        "rows_estimate": 10,
        "size_bytes": 2048,
        "begins_at": "2027-04-01T00:00:00Z",
        "ends_at": "2027-05-01T00:00:00Z",
        "due_at": "2027-05-31T00:00:00Z",
        "due": True,
        "by_hand": False,
    }
    assert tables[0]["partitions"][3]["due_at"] is None
    assert tables[1]["partitions"] == []


def test_due_begins_when_the_kept_days_are_over() -> None:
    over = month(5) + timedelta(days=30)
    for now, due in ((over - timedelta(seconds=1), False), (over, True), (over + timedelta(seconds=1), True)):
        tables = sizes_json(TABLES, KEPT, now)["tables"]
        assert isinstance(tables, list)
        assert tables[0]["partitions"][1]["due"] is due


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024**2, "1.5 GiB"), (9000 * 1024**4, "9000.0 TiB")],
)
def test_bytes_are_written_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text
