"""deploy/ray: what Ray Serve and KubeRay are given is what the code and their schemas know."""

import json
import os
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

from deploy.charts import ROOT
from medreward.scale import policy
from medreward.settings import Settings

SERVE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
SERVICE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/ray/rayservice.yaml").read_text())
INSIDE: Final[dict[str, Any]] = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])


def test_both_configurations_serve_our_application_with_settings_that_exist() -> None:
    for config in (SERVE, INSIDE):
        (application,) = config["applications"]
        assert application["import_path"] == "medreward.scale.serve_app:build"
        Settings(**application["args"])
        (deployment,) = application["deployments"]
        chosen = deployment["autoscaling_config"]["policy"]
        assert chosen["policy_function"] == f"{policy.__name__}:{policy.QueuedCost.__name__}"
        policy.QueuedCost(**chosen["policy_kwargs"])


def test_what_others_can_reach_has_keys() -> None:
    assert SERVE["http_options"]["host"] == "127.0.0.1"
    (application,) = INSIDE["applications"]
    assert INSIDE["http_options"]["host"] == "0.0.0.0"
    assert application["args"]["keys_file"]


def test_the_manifest_is_valid() -> None:
    """Of the custom resource only where CRD_SCHEMAS names a folder of schemas; its pods always."""
    cluster = SERVICE["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, "1.35", strict=True)
        for container in template["spec"]["containers"]:
            variables = {one["name"]: one["value"] for one in container["env"]}
            assert variables["RAY_SERVE_SESSION_ID_HEADER_KEY"] == "x-affinity-key"
            assert variables["RAY_USAGE_STATS_ENABLED"] == "0"
    schema = Path(os.environ.get("CRD_SCHEMAS", "/nowhere")) / "ray.io_rayservice_v1.json"
    if schema.exists():
        assert not [*jsonschema.Draft7Validator(json.loads(schema.read_text())).iter_errors(SERVICE)]
