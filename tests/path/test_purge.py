"""A server drops what is past its retention, and says so."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tests.servers import ServerProcess, keyring_file
from watchword_server.store.partitions import Partition

HELD_UP = "dropping %s put off: LockNotAvailableError"


def test_a_server_drops_what_is_past_and_tells_what_it_could_not(dsn: str, tmp_path: Path) -> None:
    keyring = keyring_file(tmp_path)
    settings = {
        "WATCHWORD_DATABASE_URL": dsn,
        "WATCHWORD_KEYRING_FILE": str(keyring),
        "WATCHWORD_EXPIRED_TOKENS_KEPT_DAYS": "7",
    }
    # The partitions end where those begin that the server makes for its own time.
    ends_at = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=62)
    past = [Partition(parent, ends_at - timedelta(days=31), ends_at) for parent in ("tokens", "token_usage")]
    with psycopg.connect(dsn, autocommit=True) as plain, psycopg.connect(dsn) as reader:
        for one in past:
            bounds = [one.lower_bound, one.upper_bound]
            plain.execute("select ensure_partition(%s, %s, %s, %s)", [one.parent, one.name, *bounds])
        reader.execute("lock table tokens in access share mode")
        with ServerProcess(tmp_path, settings) as server:
            server.wait_for_log(re.compile(HELD_UP % past[0].name))
            assert json.loads(next(line for line in server.log if "dropped " in line))["event"].startswith(
                f"dropped {past[1].name}: all in it was past by "
            )
            found = scraped(server)
            assert found['watchword_partitions_dropped_total{table="token_usage"}'] == 1
            assert 'watchword_partitions_dropped_total{table="tokens"}' not in found
            assert found["watchword_purges_put_off_total"] == 1
            overdue = timedelta(seconds=found["watchword_purge_overdue_seconds"])
            assert timedelta() <= datetime.now(UTC) - ends_at - timedelta(days=7) - overdue < timedelta(minutes=5)
        reader.rollback()
        with ServerProcess(tmp_path, settings) as server:
            server.wait_for_log(re.compile(f"dropped {past[0].name}"))
            assert plain.execute("select to_regclass(%s)", [past[0].name]).fetchone() == (None,)


def scraped(server: ServerProcess) -> dict[str, float]:
    """What its metrics say, once it has said how the purge went."""
    url = next(match[1] for line in server.log if (match := re.search(r"metrics on (http://[^\s\"]+)", line)))
    for _ in range(1000):
        with urllib.request.urlopen(url, timeout=30) as response:
            lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
        found = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
        if "watchword_purge_overdue_seconds" in found:
            return found
    raise AssertionError("the metrics say nothing of the purge")
