"""Every row in its shortest form, on real servers: it measures, and it notices what is not a successful check."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from bench.cost import check_cost
from bench.figures import MeasurementError
from bench.load import Caller
from bench.population import issue_request
from bench.rows import ROWS, Row, issue
from bench.stage import Plan, Stage

pytestmark = pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (nghttp2-client)")

_SHORT = Plan(
    rounds=1,
    seconds=0.05,
    processes=2,
    streams=2,
    tokens_each=4,
    batch_size=4,
    batch_processes=2,
    slices=2,
    verifiers=4,
    revocations=3,
    frozen_lease_seconds=1.0,
    bulk_tokens=200,
    entries=2_000,
    entries_many=3_000,
    entries_few=300,
    scan_bytes=1 << 20,
    usage_intervals=1,
    idle_watchers=4,
    idle_lease_seconds=2,
    idle_seconds=1.0,
    tokens_many=3_000,
    tokens_few=300,
    presentable=1_000,
    purge_tokens=2_000,
)
# In so short a form the noise can be larger than they are.
_DIFFERENCES = {
    "interceptor_hit_us",
    "interceptor_hit_share",
    "renewals_core_percent",
    "interceptor_us",
    "usage_share",
    "added_without_network_us",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(_SHORT, stack)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0])
def test_row_measures_the_figures_it_names(stage: Stage, row: Row) -> None:
    figures = row.measure(stage)

    assert tuple(figure.name for figure in figures) == row.names
    for figure in figures:
        assert figure.value > 0 or figure.name in _DIFFERENCES
        assert figure.baseline["rounds"] == 1
        assert all(value > 0 for name, value in figure.baseline.items() if name not in _DIFFERENCES)


def test_tokens_that_are_not_good_are_no_figure(stage: Stage) -> None:
    """h2load takes `inactive` for a success: the server's count of verdicts does not."""
    loaded = stage.loaded("native")
    first, second = loaded.population.verifiers
    swapped = [replace(first, tokens=second.tokens).unary_caller(0)]

    with pytest.raises(MeasurementError, match="audience_mismatch"):
        check_cost(loaded.authority, "Validate", swapped, calls_each=5, streams=1)


def test_one_bad_token_in_a_batch_is_no_figure(stage: Stage) -> None:
    loaded = stage.loaded("native")
    first, second = loaded.population.verifiers
    mixed = replace(first, tokens=[*first.tokens[:3], second.tokens[0]])

    with pytest.raises(MeasurementError, match="audience_mismatch"):
        check_cost(
            loaded.authority, "BatchValidate", [mixed.batch_caller(4)], calls_each=5, streams=1, tokens_per_call=4
        )


def test_caller_that_is_refused_is_no_figure(stage: Stage) -> None:
    loaded = stage.loaded("native")
    good = loaded.population.verifiers[0].unary_caller(0)

    with pytest.raises(MeasurementError, match="judged none"):
        check_cost(loaded.authority, "Validate", [Caller(good.message, "not-a-token")], calls_each=5, streams=1)


def test_issue_that_stores_nothing_is_no_figure(stage: Stage) -> None:
    """A verifier may not issue: the calls are answered, the rows are not there."""
    loaded = stage.loaded("native")
    database = loaded.authority.postgres.watchword_database()
    refused = [Caller(issue_request("x", "y").SerializeToString(), loaded.population.verifiers[0].secret)]

    with pytest.raises(MeasurementError, match="0 tokens were stored"):
        issue.issue_load(loaded.authority, database, refused, 5, 1)
