"""What the chart renders is valid, for several versions of Kubernetes and each set of values in helm/medreward/ci."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from deploy.charts import CHART, VALUE_SETS, Manifest, containers, helm, pods, rendered, value_set

VERSIONS = ("1.30", "1.33", "1.35", "1.37")
#: A volume of the kind `image` is not known before.
TOO_NEW = {"oci": ("1.30",)}
#: Custom resources: what must stand in `spec`, and what may.
CUSTOM = {
    "AnalysisTemplate": ({"metrics"}, {"args", "metrics"}),
    "BackendTrafficPolicy": ({"targetRefs", "loadBalancer"}, {"targetRefs", "loadBalancer"}),
    "Certificate": ({"secretName", "issuerRef", "dnsNames"}, {"secretName", "issuerRef", "dnsNames", "privateKey"}),
    "ExternalSecret": ({"secretStoreRef", "target", "data"}, {"secretStoreRef", "target", "data", "refreshInterval"}),
    "GRPCRoute": ({"parentRefs", "rules"}, {"parentRefs", "hostnames", "rules"}),
    "HTTPRoute": ({"parentRefs", "rules"}, {"parentRefs", "hostnames", "rules"}),
    "PrometheusRule": ({"groups"}, {"groups"}),
    "ScaledObject": (
        {"scaleTargetRef", "triggers"},
        {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "fallback", "advanced", "triggers"},
    ),
    "ServiceMonitor": ({"selector", "endpoints"}, {"selector", "endpoints"}),
}


def schema_of(manifest: Manifest) -> dict[str, Any] | None:
    """Returns the schema of a custom resource, from the folder of CRD_SCHEMAS (files as in the CRDs-catalog)."""
    folder = os.environ.get("CRD_SCHEMAS")
    group, version = manifest["apiVersion"].split("/")
    file = Path(folder or "/nowhere") / f"{group}_{manifest['kind'].lower()}_{version}.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_the_value_sets_bring_every_kind() -> None:
    """Else what follows would say nothing of a kind that none of them makes."""
    kinds = {manifest["kind"] for name in VALUE_SETS for manifest in value_set(name)}
    core = {"Deployment", "StatefulSet", "Service", "ServiceAccount", "NetworkPolicy", "ConfigMap", "Pod", "Job"}
    optional = {"PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress", "PersistentVolumeClaim"}
    assert kinds == core | optional | CUSTOM.keys()
    assert len(VALUE_SETS) >= 10


def test_core_kinds_are_valid_for_four_versions_of_kubernetes() -> None:
    seen = set()
    for name in VALUE_SETS:
        for manifest in value_set(name):
            written = json.dumps(manifest, sort_keys=True)
            if manifest["kind"] in CUSTOM or written in seen:
                continue
            seen.add(written)
            for version in VERSIONS:
                if version not in TOO_NEW.get(name, ()):
                    kubernetes_validate.validate(manifest, version, strict=True)
    assert len(seen) > 30


@pytest.mark.parametrize("name", VALUE_SETS)
def test_custom_resources_are_what_their_operators_read(name: str) -> None:
    for manifest in value_set(name):
        if manifest["kind"] not in CUSTOM:
            continue
        needed, allowed = CUSTOM[manifest["kind"]]
        assert needed <= manifest["spec"].keys() <= allowed, manifest["kind"]
        if schema := schema_of(manifest):
            # Without a look at the schema itself, whose patterns are written for Go.
            assert not [*jsonschema.Draft7Validator(schema).iter_errors(manifest)]


def test_an_invalid_manifest_would_be_noticed() -> None:
    manifest = next(it for it in rendered() if it["kind"] == "Deployment")
    wrong = {**manifest, "spec": {**manifest["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


def test_every_object_has_a_name_that_kubernetes_takes() -> None:
    long = "r" * 53  # the longest that helm takes
    for name in VALUE_SETS:
        for manifest in value_set(name, long):
            assert len(manifest["metadata"]["name"]) <= 63, manifest["metadata"]["name"]


def test_images_are_pinned() -> None:
    for name in VALUE_SETS:
        for where, pod in pods(value_set(name)):
            for container in containers(pod):
                assert ":" in container["image"], where
                assert not container["image"].endswith(":latest"), where
