"""One module for each kind of figure, and the list of them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.figures import Figure
from bench.rows import (
    batch,
    bulk,
    growth,
    idle,
    interceptor,
    issue,
    memory,
    purge,
    revoke,
    scan,
    statements,
    usage,
    validate_cpu,
    validate_idle,
)
from bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Row:
    """Figures that are measured together."""

    names: tuple[str, ...]
    measure: Callable[[Stage], list[Figure]]


ROWS: Final = (
    Row(("validate_vs_echo_grpcio",), validate_cpu.measure_grpcio),
    Row(("validate_vs_echo_native", "validate_total_us_native"), validate_cpu.measure_native),
    Row(("validate_p50_idle_ratio",), validate_idle.measure),
    Row(("sql_per_validate",), statements.measure),
    Row(("batch_validate_tokens_per_call_cost",), batch.measure),
    Row(("issue_vs_floor",), issue.measure),
    Row(("interceptor_hit_us", "interceptor_hit_share"), interceptor.measure),
    Row(("interceptor_vs_remote",), interceptor.measure_remote),
    Row(("usage_share",), usage.measure),
    Row(("usage_writes_per_token_interval",), usage.measure_writes),
    Row(("cache_bytes_per_entry",), memory.measure),
    Row(("million_hit_ratio", "million_renewal_ratio"), memory.measure_many),
    Row(("renewals_core_percent",), idle.measure),
    Row(("revoke_everywhere_p99_ms",), revoke.measure),
    Row(("revoke_frozen_seconds",), revoke.measure_frozen),
    Row(("bulk_revocations_per_second",), bulk.measure),
    Row(("growth_10m", "bytes_per_token"), growth.measure),
    Row(("purge_1m_ms", "purge_p99_ratio"), purge.measure),
    Row(("scan_mb_per_second",), scan.measure),
)
