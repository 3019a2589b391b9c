"""Alerts: each one fires in a test of promtool and is quiet in another, leads to a runbook, and finds its receiver."""

import re
from pathlib import Path

import httpx
import pytest
import yaml

from deploy.charts import ROOT, only, rendered
from deploy.monitors import ALERTMANAGER, RULES, alertmanager, run, until

RUNBOOK = ROOT / "docs" / "runbooks" / "README.md"
TESTS = RULES.with_name("medreward.rules.test.yml")
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def fired(text: str) -> set[str]:
    return {*re.findall(r'alertname="(\w+)"', text)}


@pytest.mark.slow
def test_the_rules_do_what_their_tests_say() -> None:
    """In each test the alerts that fire are listed, so that all others are quiet there."""
    done = run("promtool", "test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    moments = [it for test in yaml.safe_load(TESTS.read_text())["tests"] for it in test["promql_expr_test"]]
    assert {it["expr"] for it in moments} == {'count by (alertname) (ALERTS{alertstate="firing"})'}
    assert fired(TESTS.read_text()) == ALERTS.keys()


@pytest.mark.slow
def test_the_tests_of_the_rules_notice_a_changed_threshold(tmp_path: Path) -> None:
    tests = yaml.safe_load(TESTS.read_text())
    tests["tests"] = [it for it in tests["tests"] if "little worse" in it["name"]]
    assert len(tests["tests"]) == 1
    (tmp_path / TESTS.name).write_text(yaml.safe_dump(tests))
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("> 0.8", "> 0.9"))
    assert run("promtool", "test", "rules", tmp_path / TESTS.name).returncode != 0


def test_the_files_are_what_prometheus_and_alertmanager_read() -> None:
    assert run("promtool", "check", "config", RULES.with_name("prometheus.yml")).returncode == 0
    assert run("amtool", "check-config", ALERTMANAGER).returncode == 0


def test_an_alert_says_what_it_is_about_and_where_to_read_on() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.search(r"\{\{ \$labels\.(job|instance) \}\}", rule["annotations"]["summary"]), name
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/README.md#{name.lower()}"


def test_the_runbook_has_a_section_of_three_parts_for_each_alert() -> None:
    sections = dict(re.findall(r"^## (MedReward\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))
    assert sections.keys() == ALERTS.keys()
    for name, text in sections.items():
        for part in ("What it means", "What to look at", "What to do"):
            assert f"**{part}.** " in text, (name, part)


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket")])
def test_an_alert_goes_to_who_is_meant(severity: str, receiver: str) -> None:
    labels = (f"severity={severity}", "job=medreward", "alertname=MedRewardQueueFull")
    done = run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert done.stdout.strip() == receiver


@pytest.mark.slow
def test_a_server_that_is_down_has_nothing_else_to_say(tmp_path: Path) -> None:
    """A real Alertmanager is told of two servers: of the one that is down, one alert is left."""
    with alertmanager(tmp_path) as url:
        for name, instance in (
            ("MedRewardDown", "a"),
            ("MedRewardQueueFull", "a"),
            ("MedRewardQueueFull", "b"),
            ("MedRewardCertificateSoon", "b"),
            ("MedRewardCertificate", "b"),
        ):
            severity = ALERTS[name]["labels"]["severity"]
            labels = (f"alertname={name}", "job=medreward", f"instance={instance}", f"severity={severity}")
            assert run("amtool", f"--alertmanager.url={url}", "alert", "add", *labels).returncode == 0

        def heard() -> dict[tuple[str, str], str]:
            """Receivers of the alerts that are not held back."""
            found = httpx.get(f"{url}/api/v2/alerts?inhibited=false", trust_env=False).json()
            return {
                (it["labels"]["alertname"], it["labels"]["instance"]): it["receivers"][0]["name"]
                for it in found
                if it["status"]["state"] == "active"
            }

        until(lambda: len(heard()) == 3)
        assert heard() == {
            ("MedRewardDown", "a"): "page",
            ("MedRewardQueueFull", "b"): "ticket",
            ("MedRewardCertificateSoon", "b"): "page",
        }


def test_the_chart_takes_the_same_rules_for_its_own_release() -> None:
    made = only(rendered(monitoring__rules__enabled=True), "PrometheusRule")["spec"]
    here = RULES.read_text().replace('job="medreward"', 'namespace="ns",job="one-medreward-admin"')
    assert made == yaml.safe_load(here)
    wiki = {"enabled": True, "runbookUrl": "https://wiki.example/rm"}
    made = only(rendered(monitoring__rules=wiki), "PrometheusRule")["spec"]
    urls = {
        rule["annotations"]["runbook_url"] for group in made["groups"] for rule in group["rules"] if "alert" in rule
    }
    assert all(url.startswith("https://wiki.example/rm#medreward") for url in urls)
