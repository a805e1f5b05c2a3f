"""docs/kubernetes: the manifests fit the schemas of Kubernetes, each other, the image and the settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from logagg.collector.config import load_settings
from logagg.collector.settings import Settings
from logagg.collector.units import parse_duration

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "kubernetes"
#: The oldest and the newest that the page names.
VERSIONS = ("1.30", "1.37")
#: Validates objects, as JSON on stdin, of which it prints how many there are.
VALIDATE = """
import json, sys, kubernetes_validate
found = json.load(sys.stdin)
for each in found:
    kubernetes_validate.validate(each, sys.argv[1], strict=True)
print(len(found))
"""


def objects(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(FOLDER / name))


ALL = [each for path in sorted(FOLDER.glob("*.yaml")) for each in objects(path.name)]


def the(kind: str, name: str = "logagg") -> dict[str, Any]:
    (found,) = [each for each in ALL if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(kind: str, name: str = "logagg") -> dict[str, Any]:
    found: dict[str, Any] = the(kind, name)["spec"]["template"]["spec"]
    return found


def container(kind: str, name: str = "logagg") -> dict[str, Any]:
    (found,) = pod(kind, name)["containers"]
    return dict(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_fit_the_schema(version: str) -> None:
    assert validated(ALL, version) == (0, f"{len(ALL)}\n")


def test_what_does_not_fit_is_found() -> None:
    wrong = the("Service") | {"spec": {"prots": []}}
    assert validated([wrong], VERSIONS[0])[0] == 1


def validated(found: list[dict[str, Any]], version: str) -> tuple[int, str]:
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed", exc_type=ImportError)
    command = [sys.executable, "-c", VALIDATE, version]
    done = subprocess.run(command, input=json.dumps(found), capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout


def test_the_page_names_the_versions() -> None:
    assert f"Kubernetes {VERSIONS[0]} and {VERSIONS[1]}" in (FOLDER / "README.md").read_text().replace("\n", " ")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a pod: the variables of the image, and those of the manifest over them."""
    for name in [name for name in os.environ if name.startswith("LOGAGG_")]:
        monkeypatch.delenv(name)
    secret = the("Secret")["stringData"]
    for each in container("Deployment")["env"]:
        value = each["value"] if "value" in each else secret[each["valueFrom"]["secretKeyRef"]["key"]]
        monkeypatch.setenv(each["name"], value)
    for name in ("HTTP", "FORWARD"):
        monkeypatch.setenv(f"LOGAGG_{name}_LISTEN", f"0.0.0.0:{default(name)}")
    return load_settings()


def default(name: str) -> int:
    port: int = Settings.model_fields[f"{name.lower()}_listen"].default.port
    return port


def test_only_what_is_protected_listens(settings: Settings) -> None:
    listening = {name: value.port for name, value in settings if name.endswith("_listen") and value}
    assert not settings.insecure
    assert [name for name in listening if not settings.protected(name)] == []
    ports = {each["name"]: each["containerPort"] for each in container("Deployment")["ports"]}
    assert {f"{name}_listen": port for name, port in ports.items()} == listening
    service = the("Service")["spec"]["ports"]
    assert {each["targetPort"]: each["port"] for each in service} == ports


def test_the_pod_has_time_to_stop_and_no_power(settings: Settings) -> None:
    running, about = pod("Deployment"), container("Deployment")
    assert running["terminationGracePeriodSeconds"] > settings.stop_timeout.total_seconds()
    assert running["securityContext"]["runAsNonRoot"]
    assert f"USER {running['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    for each in (about, container("DaemonSet", "fluent-bit")):
        assert each["securityContext"]["readOnlyRootFilesystem"]
        assert not each["securityContext"]["allowPrivilegeEscalation"]
        assert each["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert about["resources"]["limits"]["memory"] == "1Gi"
    assert settings.memory <= 1 << 29  # the interpreter and its libraries come on top
    assert "LOGAGG_DATA_DIR=/var/lib/logagg" in (ROOT / "Dockerfile").read_text()
    assert "/var/lib/logagg" in {each["mountPath"] for each in about["volumeMounts"]}


def test_probes_ask_what_answers_without_a_token() -> None:
    about = container("Deployment")
    asked = {name: about[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert parse_duration(f"{about['readinessProbe']['timeoutSeconds']}s") > parse_duration("5s")  # READY_TIMEOUT


def test_what_is_named_is_there() -> None:
    for each in (container("Deployment"), container("DaemonSet", "fluent-bit")):
        keys = [env["valueFrom"]["secretKeyRef"] for env in each["env"] if "secretKeyRef" in env.get("valueFrom", {})]
        assert keys
        assert all(key["key"] in the("Secret", key["name"])["stringData"] for key in keys)
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert the(kind)["spec"]["selector"]["matchLabels"] == the("Service")["spec"]["selector"]
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert the("Service")["spec"]["selector"].items() <= labels.items()
    names = {each["name"] for each in pod("DaemonSet", "fluent-bit")["volumes"]}
    assert {each["name"] for each in container("DaemonSet", "fluent-bit")["volumeMounts"]} == names


def test_fluent_bit_sends_to_the_service_and_waits_for_its_acknowledgement() -> None:
    config = YAML(typ="safe").load(the("ConfigMap", "fluent-bit")["data"]["fluent-bit.yaml"])
    (output,) = config["pipeline"]["outputs"]
    service = the("Service")
    assert output["host"] == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert output["port"] == default("FORWARD")
    assert (output["require_ack_response"], output["retry_limit"]) == (True, "no_limits")
    variables = {f"${{{each['name']}}}" for each in container("DaemonSet", "fluent-bit")["env"]}
    assert {output["shared_key"], output["self_hostname"]} == variables


def test_no_secret_is_in_the_manifests() -> None:
    assert all("CHANGE-ME" in value for value in the("Secret")["stringData"].values())
