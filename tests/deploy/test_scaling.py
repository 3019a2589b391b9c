"""Scaling on queued cost: what KEDA, HPA and KServe are told, and what a real Prometheus answers them."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml

from commands import serving
from deploy.charts import ROOT, Manifest, only, rendered
from deploy.monitors import prometheus, until

KSERVE = ROOT / "deploy" / "kserve"
PLACE = {"namespace": "ns", "job": "one-medreward-admin"}


def scaled_object() -> Manifest:
    manifests = rendered(autoscaling__type="keda", autoscaling__prometheusUrl="http://prometheus:9090")
    spec: Manifest = only(manifests, "ScaledObject")["spec"]
    return spec


def query_of_keda() -> str:
    (trigger,) = scaled_object()["triggers"]
    query: str = trigger["metadata"]["query"]
    return query


@pytest.mark.slow
def test_the_query_is_empty_after_a_lost_scrape_and_not_0(tmp_path: Path) -> None:
    query = query_of_keda()
    with serving(tmp_path) as served, prometheus(tmp_path, served.admin_url, "http://127.0.0.1:9", PLACE) as found:
        until(lambda: bool(found.query(query)))
        (idle,) = found.query(query)
        assert idle["value"][1] == "0"  # a server that answers has a queue of 0, which is not the same as no answer
        served.process.kill()
        until(lambda: not found.query(query))
        assert found.query(f"up{{job='{PLACE['job']}'}}")[0]["value"][1] == "0"
        (made_up,) = found.query(f"{query} or vector(0)")
        assert made_up["value"][1] == "0"  # what nobody may write into the query


def test_keda_takes_an_empty_answer_for_a_failure_and_keeps_pods_then() -> None:
    spec = scaled_object()
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # a text: KEDA reads no other
    assert "vector" not in trigger["metadata"]["query"]
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    assert trigger["metricType"] == "AverageValue"  # else there would be no fallback


def kserve(name: str) -> dict[str, Any]:
    (manifest,) = yaml.safe_load_all((KSERVE / name).read_text())
    return dict(manifest)


@pytest.mark.parametrize("name", ["runtime.yaml", "service.yaml"])
def test_kserves_resources_are_valid_where_their_schemas_are(name: str) -> None:
    """Against the schemas in the folder of CRD_SCHEMAS; without it, what the operator needs is looked at below."""
    manifest = kserve(name)
    group, version = manifest["apiVersion"].split("/")
    file = Path(os.environ.get("CRD_SCHEMAS", "/nowhere")) / f"{group}_{manifest['kind'].lower()}_{version}.json"
    if file.exists():
        assert not [*jsonschema.Draft7Validator(json.loads(file.read_text())).iter_errors(manifest)]
    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}


def test_the_runtime_is_a_pod_that_kubernetes_runs() -> None:
    spec = kserve("runtime.yaml")["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}
    kubernetes_validate.validate(manifest, "1.35", strict=True)


@pytest.mark.slow
def test_the_runtime_serves_the_model_under_the_services_name(tmp_path: Path) -> None:
    """The runtime's own arguments, with the ports and the model's place of a test."""
    runtime, service = kserve("runtime.yaml")["spec"], kserve("service.yaml")
    (container,) = runtime["containers"]
    moved = {"--model": f"--model={ROOT / 'models' / service['metadata']['name']}"}
    own = [moved.get(flag.split("=")[0], flag) for flag in container["args"] if "port=" not in flag]
    with serving(tmp_path, *own) as served:
        model = httpx.get(f"{served.url}/v2/models/{service['metadata']['name']}/ready", timeout=60).json()
    assert model == {"name": "medreward-mini", "ready": True}


def test_the_service_finds_its_runtime_and_scales_on_queued_cost() -> None:
    runtime, service = kserve("runtime.yaml"), kserve("service.yaml")
    predictor = service["spec"]["predictor"]
    (format_,) = runtime["spec"]["supportedModelFormats"]
    assert {it: format_[it] for it in ("name", "version")} == predictor["model"]["modelFormat"]
    assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = predictor["autoScaling"]["metrics"]
    assert metric["external"]["metric"]["query"].startswith("sum(medreward_queue_cost{")
    assert "vector" not in metric["external"]["metric"]["query"]
