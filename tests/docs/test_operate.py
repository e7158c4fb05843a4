"""docs/operate.md says what the settings and the metrics are, all of them and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le

from tests.docs.documents import code, rows, text_of
from watchword_server.observe.metrics import Metrics, ReplicaState
from watchword_server.rules.verdicts import Reason
from watchword_server.settings import SECRET_FIELDS, Settings
from watchword_server.store import migrate

OPERATE = "docs/operate.md"
SETTINGS_HEADING = "Settings"


def setting_rows() -> list[tuple[str, str, str]]:
    """What the table has to say of each setting: its variable, its default, and what is allowed."""
    return [
        (
            f"`WATCHWORD_{name.upper()}`" + (" or `..._FILE`" if name in SECRET_FIELDS else ""),
            _default(name, field),
            _allowed(field),
        )
        for name, field in Settings.model_fields.items()
        if name != "warnings"
    ]


def _default(name: str, field: Any) -> str:
    if name == "data_dir":
        return "the user's data folder"
    if field.default is None or field.default in ("", ()):
        return "none"
    return f"`{_plain(field.default)}`"


def _allowed(field: Any) -> str:
    literals = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    if literals:
        return ", ".join(f"`{choice}`" for choice in literals)
    limits = {type(limit): limit for limit in field.metadata}
    low = _plain(limits[Ge].ge) if Ge in limits else f"above {_plain(limits[Gt].gt)}" if Gt in limits else ""
    high = _plain(limits[Le].le) if Le in limits else ""
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low else ""


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float | int) else str(value)


def test_every_setting_is_in_the_table_with_its_default_and_its_limits() -> None:
    table = [(row[0], row[1], row[2]) for row in rows(OPERATE, SETTINGS_HEADING) if row[0].startswith("`WATCHWORD_")]
    assert table == setting_rows()
    assert all(row[3] for row in rows(OPERATE, SETTINGS_HEADING))


def test_the_default_data_folder_is_the_one_described() -> None:
    assert Settings().data_dir == Path.home() / ".local/share/watchword"


def test_every_metric_is_in_the_table_and_every_one_in_the_table_exists() -> None:
    metrics = Metrics(version="1")
    metrics.method("/watchword.v1.TokenService/Validate").finished(0, 0.001)
    metrics.verdicts.add("active")
    metrics.statements.add("read")
    metrics.lookup_batch_sizes.observe(1)
    metrics.administrator_seconds_left = metrics.certificate_seconds_left = metrics.housekept_at = 1.0
    metrics.partitions_dropped.add("tokens")
    metrics.purge_overdue_seconds = 1.0
    metrics.pool_state = lambda: (1, 1, 8)
    metrics.replica_state = ReplicaState(1.0, 1, 1, 1, 1, 0)
    metrics.watches_refused.add("WATCH_LAGGING")
    metrics.usage_state = lambda: (1, 0, 1)
    metrics.calls_shed.add("limit")
    metrics.rate_limited.add("issues")
    collected = {}
    for family in metrics.registry.collect():
        if family.name.startswith("watchword_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            collected[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    table = {code(row[0])[0]: set(code(row[1])) for row in rows(OPERATE, "Metrics") if row[0].startswith("`watchword_")}
    assert table == collected


def test_the_versions_of_postgresql_are_those_that_are_told_apart() -> None:
    versions = f"PostgreSQL {migrate.POSTGRES_MIN} to {migrate.POSTGRES_MAX}"
    for document in (OPERATE, "CHANGELOG.md", "deploy/README.md"):
        assert versions in text_of(document)


def test_every_verdict_is_explained() -> None:
    assert {code(row[0])[0] for row in rows(OPERATE, "Verdicts")} == {reason.value for reason in Reason}
