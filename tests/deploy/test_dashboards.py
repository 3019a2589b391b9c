"""Every query of a dashboard and every rule has data in a real Prometheus that scraped a real server under load."""

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import grpc
import httpx
import pytest
import yaml

from commands import Served, serving
from deploy.charts import ROOT
from deploy.monitors import RULES, Prometheus, alertmanager, prometheus
from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE, bundled_models
from medreward.proto import reward_pb2 as pb
from medreward.proto import reward_pb2_grpc
from pictures import jpeg
from policies import policy_text, publish, threshold

pytestmark = pytest.mark.slow

DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "deploy" / "grafana").glob("*.json"))}
VARIABLES = {"$namespace": ".*", "$job": "medreward", "$instance": ".*", "$__rate_interval": "1m"}
QUERIES = [
    pytest.param(target["expr"], id=f"{name}-{panel['title']}-{target['refId']}".replace(" ", "_"))
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", [])
]


def filled(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr
    return expr


def ask(served: Served, seed: int) -> None:
    """A round of everything: both doors, both lanes, images, an answer that is known by then, refusals, flags, a
    verdict."""
    image = b64encode(jpeg(seed)).decode()
    new = {"image": image, "question": f"What is this? {seed}", "response": "A fracture. <|im_end|>"}
    known = {"image": None, "question": "Is it known?", "response": "Yes."}
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client:
        for lane in ("bulk", "interactive"):
            for body in (new, {**new, "response": "No."}, known, known, {**known, "image": "!"}):
                client.post("/score", json=body, headers={"X-Lane": lane})
        assert client.post("/v1/screen", json=known).status_code == 200
        assert client.put("/v1/images", content=jpeg(seed)).status_code in (200, 201)
        refused = client.post("/score", json=known, headers={"X-Model-Fingerprint": "sha256:other"})
        assert refused.status_code == 409
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        stub: Any = reward_pb2_grpc.RewardServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.Score(pb.ScoreRequest(items=[pb.Item(question="q", responses=["a", "b"])]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    fingerprint = read_manifest(bundled_models() / "medreward-mini" / MANIFEST_FILE).fingerprint
    publish(folder / "policies", policy_text(threshold("good", "allow", 0.0), fingerprint=fingerprint))
    screening = ["--policies", "policies", "--audit", "audit.jsonl"]
    with serving(folder, "--model", "medreward-mini", "--threads", "1", *screening) as served:
        yield served


@pytest.fixture(scope="module")
def scraped(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that saw four rounds of load, each between two scrapes."""
    folder = tmp_path_factory.mktemp("monitors")
    with alertmanager(folder) as alerts, prometheus(folder, served.admin_url, alerts) as found:
        found.wait_for_a_scrape()
        for seed in range(4):
            ask(served, seed)
            found.wait_for_a_scrape()
        yield found


@pytest.mark.parametrize("expr", QUERIES)
def test_a_panel_has_data(expr: str, scraped: Prometheus) -> None:
    values = [float(series["value"][1]) for series in scraped.query(filled(expr))]
    assert any(not math.isnan(value) for value in values), filled(expr)


def test_what_was_asked_is_what_is_shown(scraped: Prometheus) -> None:
    """Both lanes, and the errors apart from the answers."""
    panels = {panel["title"]: panel for panel in DASHBOARDS["serving"]["panels"]}
    rates = scraped.query(filled(panels["Rate"]["targets"][0]["expr"]))
    assert {series["metric"]["lane"] for series in rates if float(series["value"][1]) > 0} == {"bulk", "interactive"}
    others = scraped.query(filled(panels["Other answers than a success"]["targets"][0]["expr"]))
    assert {"422", "409"} <= {series["metric"]["code"] for series in others}


def test_the_rules_are_evaluated_on_real_metrics(scraped: Prometheus) -> None:
    groups = scraped.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {(rule["name"], rule["health"], rule.get("lastError")) for rule in rules} == {
        (rule["name"], "ok", None) for rule in rules
    }
    assert len(rules) == sum(len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"])
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    assert firing == []  # nothing is wrong with this server
    asked = scraped.query("medreward:requests:rate5m")
    assert {series["metric"]["lane"] for series in asked} == {"bulk", "interactive"}


def test_a_rule_names_no_metric_that_is_not_exported(scraped: Prometheus) -> None:
    exported = {*scraped.get("label/__name__/values")}
    named = {*re.findall(r"\b(medreward[_:][a-z0-9_:]+)\{", RULES.read_text())}
    assert len(named) > 10
    assert named - exported == set()


def test_every_exported_metric_is_shown_or_said_not_to_be(served: Served) -> None:
    text = httpx.get(f"{served.admin_url}/metrics", trust_env=False).text
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    queries = " ".join(param.values[0] for param in QUERIES if isinstance(param.values[0], str))
    notes = next(panel["options"]["content"] for panel in DASHBOARDS["release"]["panels"] if panel["type"] == "text")
    hidden = re.findall(r"^- `([^`]+)`: .+", notes, re.MULTILINE)
    shown = {name for name in exported if re.search(rf"\b{name}(_bucket|_sum|_count)?\{{", queries)}
    assert {name for name in exported - shown if not any(fnmatch(name, pattern) for pattern in hidden)} == set()
    assert all(any(fnmatch(name, pattern) for name in exported - shown) for pattern in hidden)


def test_prometheus_tells_alertmanager(scraped: Prometheus) -> None:
    assert len(scraped.get("alertmanagers")["activeAlertmanagers"]) == 1


@pytest.mark.parametrize("name", ["release", "scores", "serving"])
def test_a_dashboard_can_be_taken_into_any_grafana(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"medreward-{name}"
    assert "id" not in dashboard
    assert "__inputs" not in dashboard
    sources = [panel["datasource"] for panel in dashboard["panels"] if "datasource" in panel]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            selectors = re.findall(r"medreward_\w+\{([^}]*)\}", target["expr"])
            assert selectors, target["expr"]
            assert all('job="$job"' in selector for selector in selectors)  # one release at a time
