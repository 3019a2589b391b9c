"""The gate of an upgrade, by its Job's very command: a model that must pass, and one that must not.

The server that serves wants a key and, as in the value set `mtls`, a certificate of every client.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bench.sets import some_cases, write_set
from commands import serving
from deploy.certificates import mount, mutual, write_certificates
from deploy.charts import VALUE_SETS, Manifest, only, pods, rendered, value_set
from deploy.running import run_container
from keyring import KeysFile
from medreward.bench.cases import Case
from medreward.clients import Client, Score, Tls
from medreward.types import DIMENSIONS

CASES = 120
#: A fast one: no load, and a margin that so few cases can show.
POLICY = """
dimensions = ["accuracy", "overall"]
alpha = 0.05
family_alpha = 0.02
power = 0.8
max_unanswered = 0.05
smoke = true
require = ["baseline", "url"]

[floors]
accuracy = 0.55
overall = 0.55

[[non_inferiority]]
dimensions = ["accuracy", "overall"]
margin = 0.15
"""


@dataclass(frozen=True)
class Serving:
    url: str
    key: str
    certificates: Path
    data: Path  # labelled four times in five with what the served model chooses


def logits_of(score: Score) -> list[float]:
    assert score.logits
    return [logit for logit in map(score.logits.get, DIMENSIONS) if logit is not None]


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The server that serves before the upgrade."""
    folder = tmp_path_factory.mktemp("now")
    keys = KeysFile(folder / "keys.jsonl")
    key, chance = keys.new(), random.Random(0)
    certificates = write_certificates(folder / "certificates")
    own = certificates / "client"
    tls = Tls(ca=certificates / "ca.crt", cert=own / "tls.crt", key=own / "tls.key")
    with serving(folder, "--keys-file", str(keys.path), *mutual(certificates)) as served:
        url = served.url.replace("http://", "https://")
        client = Client(url, key=key, tls=tls)

        def labelled(case: Case) -> Case:
            scores = client.score(case.image, case.question, [*case.answers])
            first, second = (logits_of(score) for score in scores)
            chosen = {d: "A" if a > b else "B" for d, a, b in zip(DIMENSIONS, first, second, strict=True)}
            other = {"A": "B", "B": "A"}
            return replace(case, labels={d: c if chance.random() < 0.8 else other[c] for d, c in chosen.items()})

        data = write_set(folder / "data" / "set", map(labelled, some_cases(CASES)))
        client.close()
        yield Serving(url, key, certificates, data)


def upgrade(now: Serving, root: Path, model: str) -> tuple[int, str, dict[str, Any] | None]:
    """Runs the Job of an upgrade to this model; returns its exit status, its log and the verdict that it kept."""
    gate = {
        "enabled": True,
        "data": "set",
        "dataClaim": "sets",
        "keepClaim": "verdicts",
        "policyText": POLICY,
        "blanked": False,
    }
    secrets = {"existingSecret": "rm-tls", "clientCaSecret": "rm-client-ca", "clientCertSecret": "rm-probe"}
    manifests = rendered(gate=gate, tls=secrets, model__ref=model, settings__threads=1)
    pod = only(manifests, "Job", "one-medreward-gate")["spec"]["template"]["spec"]
    (root / "data").symlink_to(now.data.parent)
    mount(now.certificates, root)
    replacing = "https://one-medreward.ns.svc:8000", now.url
    done = run_container(manifests, pod, pod["containers"][0], root, {"MEDREWARD_KEY": now.key}, replacing)
    kept = root / "gate" / "pod" / "gate.json"
    return done.returncode, done.stdout + done.stderr, json.loads(kept.read_text()) if kept.exists() else None


@pytest.mark.slow
def test_an_equal_model_may_be_released(now: Serving, tmp_path: Path) -> None:
    code, said, verdict = upgrade(now, tmp_path, "fake")
    assert verdict, said
    assert (code, verdict["verdict"]) == (0, "promote"), verdict["reasons"]
    assert '"verdict": "promote"' in said  # it is in the log too


@pytest.mark.slow
def test_a_worse_model_stops_the_upgrade(now: Serving, tmp_path: Path) -> None:
    """The bundled model, which knows nothing of these labels."""
    code, said, verdict = upgrade(now, tmp_path, "medreward-mini")
    assert verdict, said
    assert (code, verdict["verdict"]) == (1, "refuse"), verdict["reasons"]


@pytest.mark.slow
def test_a_model_that_cannot_be_served_stops_the_upgrade(now: Serving, tmp_path: Path) -> None:
    code, said, verdict = upgrade(now, tmp_path, "nothing-of-that-name")
    assert (code, verdict) == (2, None)
    assert "the candidate could not be served" in said


def test_helm_runs_the_gate_before_an_upgrade_and_takes_its_word() -> None:
    manifests = value_set("gate")
    job = only(manifests, "Job", "one-medreward-gate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert job["spec"]["backoffLimit"] == 0  # a refusal is not tried again
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    scripts = only(manifests, "ConfigMap", "one-medreward-gate")
    assert scripts["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "accuracy = 0.6" in scripts["data"]["policy.toml"]
    pod = job["spec"]["template"]["spec"]
    claims = {
        it["name"]: it["persistentVolumeClaim"]["claimName"] for it in pod["volumes"] if "persistentVolumeClaim" in it
    }
    assert claims == {"gate": "verdicts", "model": "models", "data": "benchmarks"}
    assert pod["containers"][0]["image"] == "medreward:0.2.0-bench"
    assert "--blanked" in pod["containers"][0]["args"]
    assert "Job" not in {it["kind"] for it in rendered()}


def test_the_candidate_gets_the_device_that_the_server_has() -> None:
    manifests = rendered("one", "--values", str(VALUE_SETS["gpu"]), gate__enabled=True)
    gate = only(manifests, "Job", "one-medreward-gate")["spec"]["template"]["spec"]
    serves = only(manifests, "Deployment")["spec"]["template"]["spec"]
    for field in ("runtimeClassName", "priorityClassName", "nodeSelector", "tolerations", "affinity"):
        assert gate[field] == serves[field]
    for field in ("resources", "securityContext"):
        assert gate["containers"][0][field] == serves["containers"][0][field]
    settings = [it for it in serves["containers"][0]["env"] if it["name"].startswith("MEDREWARD_")]
    assert settings
    assert all(it in gate["containers"][0]["env"] for it in settings)


def test_a_canary_is_measured_by_the_same_container() -> None:
    def container(manifest: Manifest) -> Manifest:
        found: Manifest = manifest["template"]["spec"]["containers"][0]
        return {name: value for name, value in found.items() if name != "args"} | {"args": found["args"][2:]}

    manifests = value_set("gate")
    template = only(manifests, "AnalysisTemplate", "one-medreward-gate")["spec"]
    (metric,) = template["metrics"]
    job = metric["provider"]["job"]["spec"]
    assert container(job) == container(only(manifests, "Job", "one-medreward-gate")["spec"])
    args = job["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["--candidate-url={{args.candidate-url}}", "--baseline-url={{args.baseline-url}}"]
    assert template["args"][1] == {"name": "baseline-url", "value": "https://one-medreward.ns.svc:8000"}


def test_who_calls_the_server_shows_a_certificate_where_one_is_asked_for() -> None:
    callers = {name: pod for name, pod in pods(value_set("mtls")) if name.split("/")[0] in ("Job", "Pod")}
    assert callers.keys() == {"Job/one-medreward-gate", "Pod/one-medreward-test"}
    for pod in callers.values():
        (container,) = pod["containers"]
        env = {it["name"]: it.get("value") for it in container["env"]}
        assert env["MEDREWARD_CLIENT_CERT"] == "/etc/medreward/client/tls.crt"
        assert env["MEDREWARD_CLIENT_KEY"] == "/etc/medreward/client/tls.key"
        (place,) = [it for it in container["volumeMounts"] if it["mountPath"] == "/etc/medreward/client"]
        (volume,) = [it for it in pod["volumes"] if it["name"] == place["name"]]
        assert volume["secret"] == {"secretName": "rm-probe"}
    plain = next(pod for name, pod in pods(value_set("gate")) if name.startswith("Job/"))
    assert "MEDREWARD_CLIENT_CERT" not in str(plain)
