"""What the schemas and linters of `make deploy-check` cannot see: that the deployment fits this very server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.tooling.sources import ROOT
from watchword_server.settings import SECRET_FIELDS, SettingsError, load_settings

MANIFESTS = [path for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")) if path.name != "kustomization.yaml"]
NUMERIC_USER = 10001
PROBE = "/opt/watchword/probe.py"


def documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents():
        if document["kind"] in {"Deployment", "Job"}:
            yield document["kind"], document["spec"]["template"]["spec"]


POD_SPECS = [pytest.param(spec, id=kind) for kind, spec in pods()]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def image_environment() -> dict[str, str]:
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    return dict(re.findall(r"\b(WATCHWORD_[A-Z_]+)=(\S+)", text))


def server_container() -> dict[str, Any]:
    spec = next(spec for kind, spec in pods() if kind == "Deployment")
    container: dict[str, Any] = spec["containers"][0]
    return container


@pytest.mark.parametrize("spec", POD_SPECS)
def test_pods_are_restricted(spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == NUMERIC_USER
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}


@pytest.mark.parametrize("spec", POD_SPECS)
def test_service_links_do_not_pose_as_settings(spec: dict[str, Any]) -> None:
    """A Service named watchword would otherwise set WATCHWORD_PORT and others, with which no server starts."""
    assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize("spec", POD_SPECS)
def test_secrets_are_mounted_and_never_in_the_environment(spec: dict[str, Any]) -> None:
    mounted = tuple(mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"])
    secret_files = {f"WATCHWORD_{field.upper()}_FILE" for field in SECRET_FIELDS}
    for name, value in environment(spec["containers"][0]).items():
        assert name.removeprefix("WATCHWORD_").lower() not in SECRET_FIELDS
        if name in secret_files:
            assert value.startswith(mounted)


def test_server_is_probed_for_life_and_readiness() -> None:
    """With the file that the image has, and allowed longer than the probe takes to give up."""
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    assert f"COPY deploy/probe.py {PROBE}" in text
    for name, question in (("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        probe = server_container()[name]
        assert probe["exec"]["command"] == ["python", "-I", PROBE, question]
        assert probe["timeoutSeconds"] >= 5


def test_pod_outlives_the_drain() -> None:
    """Killed in the middle of its drain, a server would break calls that it had accepted."""
    spec = next(spec for kind, spec in pods() if kind == "Deployment")
    pause_seconds = server_container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_seconds = float(environment(server_container())["WATCHWORD_DRAIN_GRACE_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] >= pause_seconds + drain_seconds + 5


@pytest.mark.parametrize("spec", POD_SPECS)
def test_settings_of_manifests_and_image_are_accepted_as_they_are(
    spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The very reader of the settings takes them, with files in place of the mounted secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    contents = {
        "WATCHWORD_DATABASE_URL_FILE": "postgresql://watchword@database/watchword?sslmode=verify-full",
        "WATCHWORD_MIGRATION_DATABASE_URL_FILE": "postgresql://owner@database/watchword?sslmode=verify-full",
        "WATCHWORD_KEYRING_FILE": '{"current": 1, "peppers": {}}',
    }
    given = image_environment() | environment(spec["containers"][0])
    for name, content in contents.items():
        if name in given:
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(content, encoding="utf-8")
            given[name] = str(path)
    settings = load_settings(given)
    assert not settings.embedded
    assert not settings.allow_plaintext_on_network_danger
    assert settings.warnings == ()


def test_image_alone_refuses_to_serve_plaintext_to_the_network() -> None:
    with pytest.raises(SettingsError, match="anyone on the way could read every token"):
        load_settings(image_environment())


def test_image_runs_as_a_numeric_user_and_carries_no_secret() -> None:
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == [f"{NUMERIC_USER}:{NUMERIC_USER}"]
    assert not {f"WATCHWORD_{field.upper()}" for field in SECRET_FIELDS} & set(image_environment())
