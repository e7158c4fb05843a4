"""Metrics say what happened, in Prometheus's form, and their port is bounded and closes."""

from __future__ import annotations

import math
import socket
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from watchword_server.observe.exposition import Exposition, ExpositionError
from watchword_server.observe.metrics import LABELS_MAX, Distribution, Metrics
from watchword_server.transport.listener import ListenAddress

VALIDATE = "/watchword.v1.TokenService/Validate"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3")


@pytest.fixture
def exposition(metrics: Metrics) -> Iterator[Exposition]:
    exposition = Exposition(metrics.registry, ListenAddress("127.0.0.1", 0))
    exposition.start()
    yield exposition
    exposition.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_calls_are_counted_by_method_and_status(metrics: Metrics) -> None:
    meter = metrics.method(VALIDATE)
    meter.finished(0, 0.004)
    meter.finished(0, 0.004)
    meter.finished(grpc.StatusCode.UNAUTHENTICATED.value[0], 3.0)
    assert value(metrics, "watchword_calls_total", method=VALIDATE, code="OK") == 2
    assert value(metrics, "watchword_calls_total", method=VALIDATE, code="UNAUTHENTICATED") == 1
    assert value(metrics, "watchword_calls_total", method=VALIDATE, code="INTERNAL") is None
    assert value(metrics, "watchword_call_seconds_bucket", method=VALIDATE, le="0.005") == 2
    assert value(metrics, "watchword_call_seconds_bucket", method=VALIDATE, le="+Inf") == 3
    assert value(metrics, "watchword_call_seconds_sum", method=VALIDATE) == pytest.approx(3.008)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_there_is_has_a_place(metrics: Metrics, code: grpc.StatusCode) -> None:
    metrics.method(VALIDATE).finished(code.value[0], 0.0)
    assert value(metrics, "watchword_calls_total", method=VALIDATE, code=code.name) == 1


def test_one_method_has_one_meter(metrics: Metrics) -> None:
    assert metrics.method(VALIDATE) is metrics.method(VALIDATE)


@pytest.mark.parametrize(
    ("observed", "counts"), [(0.9, [1, 1, 1]), (1.0, [1, 1, 1]), (1.1, [0, 1, 1]), (2.1, [0, 0, 1])]
)
def test_a_bucket_counts_up_to_and_with_its_bound(observed: float, counts: list[int]) -> None:
    distribution = Distribution((1.0, 2.0))
    distribution.observe(observed)
    assert [count for _, count in distribution.cumulative()] == counts


def test_verdicts_batches_and_statements(metrics: Metrics) -> None:
    metrics.verdicts.add("expired")
    for _ in range(3):
        metrics.statements.add("lookup")
    metrics.lookup_batch_sizes.observe(17)
    assert value(metrics, "watchword_verdicts_total", reason="expired") == 1
    assert value(metrics, "watchword_statements_total", query="lookup") == 3
    assert value(metrics, "watchword_batch_size_bucket", kind="lookup", le="16.0") == 0
    assert value(metrics, "watchword_batch_size_bucket", kind="lookup", le="32.0") == 1
    assert value(metrics, "watchword_batch_size_count", kind="issue") == 0


def test_the_first_alarm_is_an_increase(metrics: Metrics) -> None:
    """To Prometheus a series that begins with 1 has not grown."""
    names = ("rotated_token_presented", "bound_token_refused", "new_network")
    assert [value(metrics, "watchword_alarms_total", alarm=name) for name in names] == [0, 0, 0]
    metrics.alarms.add("new_network")
    assert [value(metrics, "watchword_alarms_total", alarm=name) for name in names] == [0, 0, 1]


def test_usage_is_read_at_the_scrape(metrics: Metrics) -> None:
    assert value(metrics, "watchword_uses_total") is None
    metrics.usage_state = lambda: (7, 2, 3)
    metrics.usage_rows += 4
    metrics.usage_reports.add("refused")
    read = ("watchword_uses_total", "watchword_uses_dropped_total", "watchword_usage_waiting")
    assert [value(metrics, name) for name in read] == [7, 2, 3]
    assert value(metrics, "watchword_usage_rows_total") == 4
    assert value(metrics, "watchword_usage_reports_total", result="refused") == 1
    assert value(metrics, "watchword_usage_reports_total", result="received") == 0


def test_labels_are_bounded(metrics: Metrics) -> None:
    for number in range(LABELS_MAX + 50):
        metrics.verdicts.add(f"reason-{number}")
    assert len(metrics.verdicts.snapshot()) == LABELS_MAX + 1
    assert value(metrics, "watchword_verdicts_total", reason="other") == 50


def test_pool_database_and_administrators_are_read_at_the_scrape(metrics: Metrics) -> None:
    assert value(metrics, "watchword_pool_connections", state="idle") is None
    assert math.isnan(value(metrics, "watchword_administrator_remaining_seconds") or 0)
    metrics.pool_state = lambda: (5, 2, 8)
    metrics.database_up = True
    metrics.administrator_seconds_left = 60.0
    assert value(metrics, "watchword_pool_connections", state="idle") == 2
    assert value(metrics, "watchword_pool_connections", state="busy") == 3
    assert value(metrics, "watchword_pool_connections_max") == 8
    assert value(metrics, "watchword_database_up") == 1
    assert value(metrics, "watchword_administrator_remaining_seconds") == 60
    assert value(metrics, "watchword_build_info", version="1.2.3") == 1


def test_two_servers_in_one_process_share_no_counts(metrics: Metrics) -> None:
    metrics.method(VALIDATE).finished(0, 0.1)
    assert value(Metrics(), "watchword_calls_total", method=VALIDATE, code="OK") is None


def test_a_scrape_is_valid_and_complete(metrics: Metrics, exposition: Exposition) -> None:
    metrics.method(VALIDATE).finished(0, 0.1)
    with urllib.request.urlopen(f"http://{exposition.address.target}/metrics", timeout=10) as response:
        families = {family.name for family in text_string_to_metric_families(response.read().decode())}
    assert {"watchword_calls", "watchword_call_seconds", "watchword_database_up", "process_cpu_seconds"} <= families


def test_a_client_that_says_nothing_does_not_keep_others_out(
    exposition: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition.handler, "timeout", 0.1)
    with socket.create_connection((exposition.address.host, exposition.address.port), timeout=10):
        url = f"http://{exposition.address.target}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            assert response.status == 200


def test_a_taken_port_is_an_error_that_says_what_to_set(metrics: Metrics, exposition: Exposition) -> None:
    with pytest.raises(ExpositionError, match="WATCHWORD_METRICS_LISTEN"):
        Exposition(metrics.registry, exposition.address)


def test_stop_closes_the_port_and_may_come_before_the_start(metrics: Metrics) -> None:
    unstarted = Exposition(metrics.registry, ListenAddress("127.0.0.1", 0))
    unstarted.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((unstarted.address.host, unstarted.address.port), timeout=10)
