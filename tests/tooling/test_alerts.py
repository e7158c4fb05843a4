"""The alert rules parse as PromQL, and ask for nothing that the server does not measure."""

from __future__ import annotations

import re
from typing import Any

import promql_parser
import pytest
import yaml

from tests.tooling.sources import ROOT
from watchword_server.observe.metrics import Metrics

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/watchword.rules.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
# Of Prometheus itself, one for each target it scrapes.
FOREIGN = {"up"}


def selectors(expression: promql_parser.Expr) -> list[promql_parser.VectorSelector]:
    """Every series that the expression reads."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(expression, visit)
    return found


def measured() -> dict[str, dict[str, set[str]]]:
    """Series names of a server that has something to say about everything, each with its labels' values."""
    metrics = Metrics(version="0")
    metrics.method("/watchword.v1.TokenService/Validate").finished(0, 0.001)
    metrics.verdicts.add("secret_mismatch")
    metrics.statements.add("read")
    metrics.usage_state = lambda: (1, 0, 1)
    metrics.pool_state = lambda: (1, 1, 1)
    metrics.purge_overdue_seconds = 1.0
    metrics.administrator_seconds_left = metrics.certificate_seconds_left = metrics.housekept_at = 1.0
    found: dict[str, dict[str, set[str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@each_rule
def test_rule_parses_and_reads_only_what_is_measured(rule: dict[str, Any]) -> None:
    series = measured()
    read = [one for one in selectors(promql_parser.parse(rule["expr"])) if one.name not in FOREIGN]
    for selector in read:
        assert selector.name in series
        for matcher in selector.matchers.matchers:
            assert matcher.name in {*series[str(selector.name)], "job", "instance"}


@each_rule
def test_values_that_rules_ask_for_exist(rule: dict[str, Any]) -> None:
    """A misspelt value would make an alert that never fires. Status codes are gRPC's and come from anywhere."""
    series = measured()
    for selector in selectors(promql_parser.parse(rule["expr"])):
        for matcher in selector.matchers.matchers:
            if selector.name not in FOREIGN and matcher.name in {"method", "reason", "state"}:
                assert matcher.value in series[str(selector.name)][matcher.name]


@each_rule
def test_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert re.fullmatch(r"\d+[smh]", rule["for"])


@pytest.mark.parametrize(
    "subject",
    ["Down", "Database", "Errors", "Slow", "Administrator", "Certificate", "Partitions", "Purge", "Misused", "Usage"],
)
def test_what_must_not_go_unnoticed_has_a_rule(subject: str) -> None:
    assert [rule for rule in RULES if subject in rule["alert"]]
