"""Values: a mistyped one is refused by its name, each is described, and the schema knows the server's settings."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from deploy.charts import CHART, ROOT, refusal, rendered

TYPOS: dict[str, Any] = {
    "replicas": 2,
    "replicacount": 2,
    "image__repo": "x",
    "image__Tag": "x",
    "drainseconds": 30,
    "model__name": "x",
    "model__download__file": [],
    "keys__existingsecret": "x",
    "keys__externalSecret__store": "x",
    "tls__secretName": "x",
    "tls__certManager__issuer": "x",
    "settings__queue_costs": 1,
    "settings__model": "x",
    "resources__limit": {},
    "gpu__counts": 1,
    "topologySpreadConstraints": [],
    "security__runAsUser": 1,
    "networkPolicy__client": [],
    "ingress__hosts": [],
    "gateway__parentRef": [],
    "autoscaling__maxReplica": 1,
    "monitoring__servicemonitor": {},
    "monitoring__rules__label": {},
    "gate__polices": "x",
    "model__claim__perPod": True,
    "screening__policy": {},
    "screening__audit__file": "x",
    "settings__audit": "x",
}
WRONG: dict[str, Any] = {
    "replicaCount": 0,
    "image__digest": "sha256:short",
    "model__source": "s3",
    "model__ref": "../secrets",
    "model__fingerprint": "md5:1",
    "settings__queue_cost": "much",
    "settings__dtype": "int8",
    "autoscaling__type": "vpa",
    "spareGpu": "no",
    "security__userId": 0,
    "gate__timeoutSeconds": 1,
    "screening__policies__items": {"../2.toml": "x"},
}


@pytest.mark.parametrize("name", TYPOS)
def test_a_mistyped_value_is_refused_by_its_name(name: str) -> None:
    said = refusal(**{name: TYPOS[name]})
    assert f"Additional property {name.rpartition('__')[2]} is not allowed" in said


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_cannot_be_is_refused_by_its_name(name: str) -> None:
    assert name.replace("__", ".") in refusal(**{name: WRONG[name]})


def test_a_file_of_a_model_cannot_leave_its_folder_or_go_unchecked() -> None:
    for file in ({"path": "/etc/passwd"}, {"url": "file:///etc/passwd"}, {"sha256": "none"}, {"sha": "x"}):
        whole = {"path": "a", "url": "https://x/a", "sha256": "0" * 64, **file}
        assert "model.download.files" in refusal(model__source="download", model__download__files=[whole])


def test_the_readme_lists_every_value() -> None:
    def leaves(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> list[str]:
        found: list[str] = []
        for name, value in values.items():
            inner = schema["properties"][name]
            if "properties" in inner:
                found += leaves(value, inner, f"{prefix}{name}.")
            else:
                found.append(prefix + name)
        return found

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    listed = re.findall(r"^\| `([\w.]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
    assert listed == leaves(values, json.loads((CHART / "values.schema.json").read_text()))


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == version


def test_the_default_values_render() -> None:
    assert len(rendered()) > 5
