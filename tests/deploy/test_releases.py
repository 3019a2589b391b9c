"""Two releases in one namespace, and an upgrade of one: what must be apart, and what must stay."""

import json

import pytest

from deploy.charts import VALUE_SETS, only, pods, rendered, template, value_set, workload

FULL = ("--values", str(VALUE_SETS["cpu"]), "--values", str(VALUE_SETS["keda"]))


def test_two_releases_have_no_name_and_no_selector_in_common() -> None:
    for name in VALUE_SETS:
        if name == "mesh":
            continue  # names its service account itself
        one, two = value_set(name, "one"), value_set(name, "two")
        named = [{(it["kind"], it["metadata"]["name"]) for it in release} for release in (one, two)]
        assert not named[0] & named[1], name
    selectors = [only(rendered(r), "Deployment", f"{r}-medreward")["spec"]["selector"] for r in ("one", "two")]
    assert selectors[0] != selectors[1]


def test_no_object_of_a_release_looks_at_another_one() -> None:
    """Services, network policies, scaling, rules and dashboards: `two` stands nowhere in `one`."""
    one, two = (rendered(release, *FULL) for release in ("one", "other"))
    assert "other-medreward" not in json.dumps(one)
    assert "one-medreward" not in json.dumps(two)
    for release, manifests in (("one", one), ("other", two)):
        queries = json.dumps(only(manifests, "PrometheusRule", f"{release}-medreward")["spec"])
        assert queries.count(f'job=\\"{release}-medreward-admin\\"') > 50
        assert 'job=\\"medreward\\"' not in queries


def test_two_releases_have_dashboards_of_their_own() -> None:
    uids = []
    for release in ("one", "two"):
        maps = [
            it for it in rendered(release, *FULL) if it["kind"] == "ConfigMap" and "dashboard" in str(it["metadata"])
        ]
        dashboards = [json.loads(text) for it in maps for text in it["data"].values()]
        assert len(dashboards) == 3
        uids += [dashboard["uid"] for dashboard in dashboards]
        for dashboard in dashboards:
            variables = {it["name"]: it for it in dashboard["templating"]["list"]}
            assert f'job="{release}-medreward-admin"' in variables["job"]["definition"]
            assert f"{release}-medreward" in dashboard["title"]
            assert len(dashboard["uid"]) <= 40
    assert len({*uids}) == 6
    assert uids == [*dict.fromkeys(uids)]


@pytest.mark.parametrize("name", ["cpu", "gate", "download"])
def test_what_is_rendered_twice_is_the_same(name: str) -> None:
    flags = ("--values", str(VALUE_SETS[name]))
    assert template({}, "one", flags).stdout == template({}, "one", flags).stdout


def test_an_upgrade_keeps_what_cannot_be_changed() -> None:
    """Selectors, the claim and its name, whatever else changes: image, version, labels, model."""
    old = value_set("download")
    files = [{"path": "model.toml", "url": "https://x/m", "sha256": "0" * 64}]
    changed = ("--values", str(VALUE_SETS["download"]), "--set", "image.tag=9.9.9,podLabels.team=x,model.ref=thorax-4")
    new = rendered("one", *changed, model__download__files=files)
    for kind, field in (("Deployment", "selector"), ("PersistentVolumeClaim", "accessModes")):
        name = "one-medreward-models" if kind == "PersistentVolumeClaim" else "one-medreward"
        assert only(old, kind, name)["spec"][field] == only(new, kind, name)["spec"][field]
    claim = only(new, "PersistentVolumeClaim", "one-medreward-models")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"] == only(old, "PersistentVolumeClaim", "one-medreward-models")["spec"]
    selector = only(new, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": "medreward",
        "app.kubernetes.io/instance": "one",
        "app.kubernetes.io/component": "server",
    }  # of chart 0.2.0: a later chart must have the same
    jobs = [{it["metadata"]["name"] for it in release if it["kind"] == "Job"} for release in (old, new)]
    assert not jobs[0] & jobs[1]  # a Job cannot be changed either


def test_an_upgrade_keeps_the_claims_of_pods() -> None:
    """A StatefulSet whose templates of claims, selector or Service changed would be refused."""
    old = workload(value_set("replica"))["spec"]
    changed = ("--values", str(VALUE_SETS["replica"]), "--set", "image.tag=9.9.9,podLabels.team=x,model.ref=thorax-4")
    new = workload(rendered("one", *changed))["spec"]
    assert new["template"] != old["template"]
    for field in ("volumeClaimTemplates", "selector", "serviceName", "podManagementPolicy"):
        assert new[field] == old[field]
    assert "version" not in str(new["volumeClaimTemplates"])


def test_a_selector_finds_its_own_pods() -> None:
    for name in VALUE_SETS:
        spec = workload(value_set(name))["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        assert len([*pods(value_set(name))]) >= 2
