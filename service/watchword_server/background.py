"""What the server does beside answering calls: probe the database, keep house, and watch what is going to end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from watchword_server.embedded import EmbeddedPostgres, EmbeddedPostgresError
from watchword_server.observe.metrics import Metrics
from watchword_server.parts import Parts
from watchword_server.replica_parts import ReplicaParts
from watchword_server.settings import Settings
from watchword_server.store.administrators import ENDS_SOON, last_administrator_ends_at
from watchword_server.store.contract import StoreError
from watchword_server.store.housekeeping import forget, keep_house
from watchword_server.store.purge import Retention, purge
from watchword_server.store.silent import end_silent
from watchword_server.transport.health import HealthService
from watchword_server.transport.tls import certificate_ends_at

_PROBE_SECONDS: Final = 1.0
_HOUSEKEEPING_SECONDS: Final = 3600.0
_FORGETTING_SECONDS: Final = 60.0
_SILENCE_CHECK_SECONDS: Final = 60.0
_ADMINISTRATOR_CHECK_SECONDS: Final = 300.0
_CERTIFICATE_CHECK_SECONDS: Final = 60.0

_log = logging.getLogger("watchword")


@asynccontextmanager
async def background(
    parts: Parts, replica: ReplicaParts, metrics: Metrics, health: HealthService
) -> AsyncIterator[None]:
    """Runs all of it while the block runs. The first probe is over, and health says what it found, when it begins."""
    revivals: set[asyncio.Task[None]] = set()

    async def probe() -> bool:
        answered = False
        try:
            await parts.database.ping()
            answered = True
        except StoreError:
            if parts.embedded is not None and not revivals:
                # Nobody else restarts it. In a task of its own, because a start may outlast the probe's patience.
                revival = asyncio.create_task(revive(parts.embedded))
                revivals.add(revival)
                revival.add_done_callback(revivals.discard)
        finally:
            # Also when the probe's patience ended, for which there is no answer at all.
            metrics.database_up = answered
        return answered

    async def house() -> None:
        settings = parts.settings
        await _purge(parts, metrics)
        await keep_house(
            parts.database,
            ttl_max=timedelta(seconds=settings.ttl_seconds_max),
            partition_days=settings.partition_days,
        )
        metrics.housekept_at = time.time()

    async def silent_rotations() -> None:
        await _end_silent(parts, metrics)

    async def forgetting() -> None:
        await forget(parts.database, changes_kept_seconds=parts.settings.changes_kept_seconds)

    async def certificate() -> None:
        await _watch_certificate(parts.settings, metrics)

    async def administrators() -> None:
        await _watch_administrators(parts, metrics)

    health.set_serving(await probe())
    tasks = [
        asyncio.create_task(health.keep_current(probe, interval_seconds=_PROBE_SECONDS)),
        asyncio.create_task(_every(_PROBE_SECONDS, replica.measure)),
        asyncio.create_task(_every(_HOUSEKEEPING_SECONDS, house)),
        asyncio.create_task(_every(_FORGETTING_SECONDS, forgetting)),
        asyncio.create_task(_every(_SILENCE_CHECK_SECONDS, silent_rotations)),
        asyncio.create_task(_every(_ADMINISTRATOR_CHECK_SECONDS, administrators)),
        asyncio.create_task(_every(_CERTIFICATE_CHECK_SECONDS, certificate)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *revivals, return_exceptions=True)


async def revive(embedded: EmbeddedPostgres) -> None:
    """Starts the embedded PostgreSQL if it died; if it cannot, the log says why."""
    _log.warning("the embedded PostgreSQL does not answer: starting it if it died")
    try:
        await asyncio.to_thread(embedded.revive)
    except EmbeddedPostgresError as error:
        _log.error("the embedded PostgreSQL does not start: %s", error)


async def _purge(parts: Parts, metrics: Metrics) -> None:
    settings = parts.settings
    retention = Retention.of_days(settings.expired_tokens_kept_days, settings.audit_kept_days)
    done = await purge(parts.database, retention, now=datetime.now(UTC))
    for partition in done.dropped:
        metrics.partitions_dropped.add(partition.parent)
        _log.info("dropped %s: all in it was past by %s", partition.name, partition.ends_at)
    for name, error in done.put_off.items():
        metrics.purges_put_off += 1
        _log.warning("dropping %s put off: %s", name, error)
    for name in done.by_hand:
        _log.warning("%s is past its retention, and was not made by a server: drop it by hand", name)
    metrics.purge_overdue_seconds = done.overdue.total_seconds()


async def _watch_administrators(parts: Parts, metrics: Metrics) -> None:
    ends_at, now = await last_administrator_ends_at(parts.database)
    left = timedelta() if ends_at is None else ends_at - now
    metrics.administrator_seconds_left = left.total_seconds()
    if left <= ENDS_SOON:
        _log.warning("the last administrator's token ends in %d days: issue another before that", left.days)


async def _end_silent(parts: Parts, metrics: Metrics) -> None:
    settings = parts.settings
    if settings.rotation_silence_seconds:
        metrics.rotations_ended += await end_silent(
            parts.database,
            silence=timedelta(seconds=settings.rotation_silence_seconds),
            slack=timedelta(seconds=settings.usage_slack_seconds),
        )


async def _watch_certificate(settings: Settings, metrics: Metrics) -> None:
    if settings.tls_certificate_file is None:
        return
    try:
        ends_at = await asyncio.to_thread(certificate_ends_at, settings.tls_certificate_file)
    except (OSError, ValueError):
        # Half replaced, perhaps. The last figure stands until the file can be read again.
        return
    metrics.certificate_seconds_left = (ends_at - datetime.now(UTC)).total_seconds()


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except StoreError as error:
            _log.warning("%s put off: %s", work.__name__, type(error.__cause__ or error).__name__)
        except Exception:
            # A defect. It must not end, unseen, what keeps partitions ahead.
            _log.exception("%s failed", work.__name__)
        await asyncio.sleep(seconds)
