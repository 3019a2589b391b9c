"""The chart as real helm renders it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from programs import installed

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "medreward"
VALUE_SETS = {file.stem: file for file in sorted((CHART / "ci").glob("*.yaml"))}
Manifest = dict[str, Any]


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs helm: the one beside this Python, or one on the path."""
    beside = Path(sys.executable).with_name("helm")
    program = beside if beside.exists() else installed("helm", package="helm 3 from its own site")
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


def template(values: Mapping[str, Any], release: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Renders the chart with these values."""
    sets = [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
    return helm("template", release, CHART, "--namespace", "ns", *sets, *flags)


@cache
def _rendered(values: str, release: str, flags: tuple[str, ...]) -> list[Manifest]:
    done = template(json.loads(values), release, flags)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest]


def rendered(release: str = "one", *flags: str, **values: Any) -> list[Manifest]:
    """Returns what the chart renders with these values: `a__b=1` is `a.b: 1`."""
    dotted = {name.replace("__", "."): value for name, value in values.items()}
    return _rendered(json.dumps(dotted, sort_keys=True), release, flags)


def value_set(name: str, release: str = "one") -> list[Manifest]:
    """Returns what the chart renders with a file of helm/medreward/ci."""
    return rendered(release, "--values", str(VALUE_SETS[name]))


def refusal(**values: Any) -> str:
    """Returns what helm says of values that the chart refuses."""
    done = template({name.replace("__", "."): value for name, value in values.items()}, "one")
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def only(manifests: list[Manifest], kind: str, name: str = "one-medreward") -> Manifest:
    found = [it for it in manifests if it["kind"] == kind and it["metadata"]["name"] == name]
    assert len(found) == 1, [(it["kind"], it["metadata"]["name"]) for it in manifests]
    return found[0]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yields the name and spec of every pod that the manifests make, by whatever kind."""
    for manifest in manifests:
        name, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] == "Pod":
            yield name, spec
        elif manifest["kind"] == "AnalysisTemplate":
            for metric in spec["metrics"]:
                yield name, metric["provider"]["job"]["spec"]["template"]["spec"]
        elif "template" in spec:
            claims = [it["metadata"]["name"] for it in spec.get("volumeClaimTemplates", ())]
            own = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-of-the-pod"}} for claim in claims]
            pod = spec["template"]["spec"]
            yield name, {**pod, "volumes": [*pod["volumes"], *own]}


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def workload(manifests: list[Manifest], name: str = "one-medreward") -> Manifest:
    """Returns what makes the server's pods: a Deployment or a StatefulSet."""
    (kind,) = {it["kind"] for it in manifests} & {"Deployment", "StatefulSet"}
    return only(manifests, kind, name)


def server(manifests: list[Manifest]) -> Manifest:
    """Returns the server's container."""
    found: Manifest = workload(manifests)["spec"]["template"]["spec"]["containers"][0]
    return found


def argument(container: Manifest, flag: str) -> str:
    found = [word.removeprefix(f"{flag}=") for word in container["args"] if word.startswith(f"{flag}=")]
    assert len(found) == 1, container["args"]
    return str(found[0])
