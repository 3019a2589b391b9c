"""Every pod of the chart: Pod Security `restricted`, what may be written, what follows from which value."""

from typing import Any

import pytest

from deploy.charts import (
    VALUE_SETS,
    Manifest,
    argument,
    containers,
    only,
    pods,
    refusal,
    rendered,
    server,
    value_set,
    workload,
)

ALL_PODS = [pytest.param(pod, id=f"{name}-{where}") for name in VALUE_SETS for where, pod in pods(value_set(name))]
WRITABLE = {"emptyDir", "persistentVolumeClaim"}
#: Volumes that `restricted` lets in, and the one for images.
VOLUMES = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "secret"}


@pytest.mark.parametrize("pod", ALL_PODS)
def test_a_pod_is_restricted(pod: Manifest) -> None:
    """The fields of the Pod Security Standard `restricted`, those of `baseline` among them."""
    for field in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        assert not pod.get(field)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile", "procMount"} & security.keys()
    assert pod["automountServiceAccountToken"] is False
    for volume in pod["volumes"]:
        assert len(volume.keys() - {"name"} & VOLUMES) == 1, volume
    for container in containers(pod):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["privileged"] is False
        assert own["runAsNonRoot"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"runAsUser", "procMount", "seLinuxOptions"} & own.keys()
        assert not any("hostPort" in port for port in container.get("ports", []))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert "host" not in container.get(probe, {}).get("httpGet", {})


@pytest.mark.parametrize("pod", ALL_PODS)
def test_nothing_is_written_but_into_the_places_for_it(pod: Manifest) -> None:
    kinds = {volume["name"]: (volume.keys() - {"name"}).pop() for volume in pod["volumes"]}
    for container in containers(pod):
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= {"/cache", "/tmp", "/dev/shm", "/gate", "/models", "/audit", "/policies"}  # noqa: S108  # paths in the container
        assert all(kinds[mount["name"]] in WRITABLE for mount in container["volumeMounts"] if not mount.get("readOnly"))
        assert "/models" not in writable or container["name"] == "download"
        environment = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
        if "/cache" in writable:
            assert environment["HOME"] == environment["XDG_CACHE_HOME"] == "/cache"
            assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("pod", ALL_PODS)
def test_a_service_named_like_us_sets_no_unknown_setting(pod: Manifest) -> None:
    """Kubernetes would set MEDREWARD_PORT for a Service `medreward`, and the server stops at an unknown setting."""
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("pod", ALL_PODS)
def test_every_container_says_what_it_needs(pod: Manifest) -> None:
    for container in containers(pod):
        assert {"requests", "limits"} <= container["resources"].keys()
        assert "memory" in container["resources"]["limits"]


def test_the_root_is_read_only_unless_a_gpu_runtime_needs_it() -> None:
    for name in VALUE_SETS:
        wanted = name != "gpu"
        for _, pod in pods(value_set(name)):
            assert {container["securityContext"]["readOnlyRootFilesystem"] for container in containers(pod)} == {wanted}


@pytest.mark.parametrize("drain", [1, 30, 120, 3600])
def test_flag_wait_and_grace_follow_from_one_value(drain: int) -> None:
    manifests = rendered(drainSeconds=drain)
    wait = server(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = only(manifests, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert int(argument(server(manifests), "--drain-seconds")) == drain
    assert wait >= 5
    assert grace > wait + drain


def test_a_grace_period_that_would_cut_the_drain_is_refused() -> None:
    assert "terminationGracePeriodSeconds 35 is too short" in refusal(terminationGracePeriodSeconds=35)
    pod = only(rendered(terminationGracePeriodSeconds=36), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 36


@pytest.mark.parametrize(("seconds", "probes"), [(600, 120), (30, 6), (1801, 361)])
def test_a_pod_may_take_its_time_to_load(seconds: int, probes: int) -> None:
    container = server(rendered(startupSeconds=seconds))
    probe = container["startupProbe"]
    assert probe["httpGet"]["path"] == "/readyz"
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (5, probes)
    assert argument(container, "--load-seconds") == str(seconds)
    assert only(rendered(startupSeconds=seconds), "Deployment")["spec"]["progressDeadlineSeconds"] > seconds


def test_live_and_ready_are_asked_apart() -> None:
    container = server(rendered())
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert server(value_set("ingress"))["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"


def test_probes_show_a_certificate_where_one_is_asked_for() -> None:
    container = server(value_set("mtls"))
    for probe, path in (("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["exec"]["command"][2:] == [f"https://127.0.0.1:8000{path}", "/etc/medreward/client"]
    assert "needs tls.clientCertSecret" in refusal(tls__existingSecret="a", tls__clientCaSecret="b")
    assert "needs tls.existingSecret" in refusal(tls__clientCertSecret="a", tls__clientCaSecret="b")


@pytest.mark.parametrize(("spare", "surge", "unavailable"), [(True, 1, 0), (False, 0, 1)])
def test_a_roll_out_knows_whether_a_gpu_is_free(spare: bool, surge: int, unavailable: int) -> None:
    strategy = only(rendered(spareGpu=spare), "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": surge, "maxUnavailable": unavailable}


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({"replicaCount": 1}, False),
        ({"replicaCount": 2}, True),
        ({"autoscaling": {"type": "hpa", "minReplicas": 1}, "replicaCount": 3}, False),
        ({"autoscaling": {"type": "hpa", "minReplicas": 2}}, True),
    ],
)
def test_a_budget_of_disruptions_needs_more_than_one_pod(values: dict[str, Any], made: bool) -> None:
    """Of a single pod it would keep a node from ever being drained."""
    assert ("PodDisruptionBudget" in {it["kind"] for it in rendered(**values)}) is made


def test_an_autoscaler_is_the_only_one_to_set_the_number_of_pods() -> None:
    assert only(rendered(replicaCount=3), "Deployment")["spec"]["replicas"] == 3
    for name in ("keda", "hpa"):
        assert "replicas" not in only(value_set(name), "Deployment")["spec"]


def test_an_empty_answer_of_prometheus_is_no_empty_queue() -> None:
    spec = only(value_set("keda"), "ScaledObject")["spec"]
    trigger = spec["triggers"][0]["metadata"]
    assert trigger["ignoreNullValues"] == "false"
    assert "vector(0)" not in trigger["query"]
    assert trigger["query"] == 'sum(medreward_queue_cost{namespace="ns",job="one-medreward-admin"})'
    assert trigger["threshold"] == "400000"
    assert spec["triggers"][0]["metricType"] == "AverageValue"  # the fallback works with no other
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    assert spec["minReplicaCount"] >= 1
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 600
    }
    assert "needs autoscaling.prometheusUrl" in refusal(autoscaling={"type": "keda"})
    assert "minReplicas" in refusal(autoscaling={"type": "keda", "minReplicas": 0})  # no pod has no series


def test_a_pod_goes_where_its_gpu_is() -> None:
    pod = only(value_set("gpu"), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": 1}
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["priorityClassName"] == "serving"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["nodeSelector"]
    assert pod["affinity"]["nodeAffinity"]
    slice_of = server(value_set("mig"))["resources"]["limits"]
    assert slice_of["nvidia.com/mig-1g.10gb"] == 1
    assert not any("nvidia" in name for name in server(rendered())["resources"]["limits"])


def test_pods_are_spread_by_the_chart_s_own_selector() -> None:
    deployment = only(value_set("hpa"), "Deployment")["spec"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["selector"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"


def test_settings_become_variables_as_they_were_written() -> None:
    container = server(rendered(settings={"queue_cost": 8_000_000, "probe_seconds": 0.5, "deterministic": True}))
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["MEDREWARD_QUEUE_COST"] == "8000000"  # not 8e+06
    assert environment["MEDREWARD_PROBE_SECONDS"] == "0.5"
    assert environment["MEDREWARD_DETERMINISTIC"] == "true"


def test_a_change_of_the_configuration_rolls_the_pods() -> None:
    def template(**values: Any) -> Manifest:
        found: Manifest = only(rendered(**values), "Deployment")["spec"]["template"]
        return found

    assert template() == template(replicaCount=3)
    assert template() != template(settings={"queue_cost": 1})
    download = {"model__source": "download", "model__ref": "new"}
    listed = [{"path": "a", "url": "https://x/a", "sha256": digit * 64} for digit in "ab"]
    one, other = (template(**download, model__download__files=[file]) for file in listed)
    assert one["metadata"]["annotations"] != other["metadata"]["annotations"]


def test_the_model_is_where_the_server_looks() -> None:
    assert argument(server(rendered()), "--model") == "medreward-mini"
    for name, volume in (("airgap", "persistentVolumeClaim"), ("download", "persistentVolumeClaim"), ("oci", "image")):
        pod = only(value_set(name), "Deployment")["spec"]["template"]["spec"]
        (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "model"]
        assert mount["readOnly"] is True
        path = argument(pod["containers"][0], "--model")
        assert mount["mountPath"] == (path if name == "oci" else "/models")
        assert path.startswith("/models/thorax-")
        assert volume in next(it for it in pod["volumes"] if it["name"] == "model")
    assert "needs model.existingClaim" in refusal(model__source="pvc")
    assert "needs model.download.files" in refusal(model__source="download")
    assert "needs model.oci.reference" in refusal(model__source="oci")


def test_each_pod_may_have_a_claim_of_its_own() -> None:
    manifests = value_set("replica")
    spec = workload(manifests)["spec"]
    claims = {it["metadata"]["name"]: it["spec"] for it in spec["volumeClaimTemplates"]}
    assert claims.keys() == {"model", "audit"}
    assert {mode for claim in claims.values() for mode in claim["accessModes"]} == {"ReadWriteOnce"}
    assert claims["model"]["resources"]["requests"]["storage"] == "5Gi"
    assert spec["serviceName"] == "one-medreward-grpc"
    assert only(manifests, "Service", spec["serviceName"])["spec"]["clusterIP"] == "None"
    pod = spec["template"]["spec"]
    assert not {"model", "audit"} & {volume["name"] for volume in pod["volumes"]}
    (download,) = pod["initContainers"]
    assert download["command"][1:3] == ["/scripts/fetch_model.py", "fetch"]
    (mount,) = [it for it in pod["containers"][0]["volumeMounts"] if it["name"] == "model"]
    assert mount == {"name": "model", "mountPath": "/models", "readOnly": True}
    assert not {"Job", "PersistentVolumeClaim"} & {it["kind"] for it in manifests}
    assert only(manifests, "ScaledObject")["spec"]["scaleTargetRef"] == {"kind": "StatefulSet", "name": "one-medreward"}


def test_who_has_no_part_in_such_a_claim_downloads_the_model_for_itself() -> None:
    """`helm test` compares the model's files, and the gate serves them."""
    gated = ("--values", str(VALUE_SETS["replica"]), "--set", "gate.enabled=true")
    callers = {name: pod for name, pod in pods(rendered("one", *gated)) if not name.startswith("StatefulSet/")}
    assert callers.keys() == {"Job/one-medreward-gate", "Pod/one-medreward-test"}
    for pod in callers.values():
        assert [it["name"] for it in pod["initContainers"]] == ["download"]
        (volume,) = [it for it in pod["volumes"] if it["name"] == "model"]
        assert volume["emptyDir"] == {"sizeLimit": "5Gi"}


def test_a_claim_of_its_own_is_for_a_download() -> None:
    own: dict[str, Any] = {"model__claim__perReplica": True}
    elsewhere: dict[str, Any] = {"model__source": "pvc", "model__existingClaim": "models"}
    for values in (own, own | elsewhere):
        assert "model.claim.perReplica needs model.source download" in refusal(**values)
    files = [{"path": "a", "url": "https://x/a", "sha256": "0" * 64}]
    download: dict[str, Any] = {"model__source": "download", "model__download__files": files}
    assert "without model.existingClaim" in refusal(**own, **download, model__existingClaim="models")
    assert workload(rendered(**own, **download))["kind"] == "StatefulSet"
    assert workload(rendered(**download))["kind"] == "Deployment"


def test_policies_are_a_folder_that_the_server_reads() -> None:
    container = server(value_set("screening"))
    assert {"name": "MEDREWARD_POLICIES", "value": "/policies"} in container["env"]
    pod = workload(value_set("screening"))["spec"]["template"]["spec"]
    (volume,) = [it for it in pod["volumes"] if it["name"] == "policies"]
    assert volume["configMap"]["name"] == "medreward-policies"
    assert {"key": "answers-2", "path": "answers/2.toml"} in volume["configMap"]["items"]
    assert {"name": "policies", "mountPath": "/policies", "readOnly": True} in container["volumeMounts"]
    moved = server(value_set("replica"))  # on a claim pointers can be moved
    assert {"name": "policies", "mountPath": "/policies"} in moved["volumeMounts"]
    both = {"configMap": "a", "items": {"a/1.toml": "a"}, "existingClaim": "b"}
    assert "not both" in refusal(screening__policies=both)
    assert "need each other" in refusal(screening__policies__configMap="a")


def test_each_pod_keeps_an_audit_log_of_its_own() -> None:
    manifests = value_set("screening")
    container = server(manifests)
    names = [variable["name"] for variable in container["env"]]
    assert names.index("POD_NAME") < names.index("MEDREWARD_AUDIT")  # a variable may name earlier ones alone
    assert {"name": "MEDREWARD_AUDIT", "value": "/audit/$(POD_NAME).jsonl"} in container["env"]
    assert {"name": "audit", "mountPath": "/audit"} in container["volumeMounts"]
    claim = only(manifests, "PersistentVolumeClaim", "one-medreward-audit")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    given = rendered(screening__audit={"enabled": True, "existingClaim": "kept"})
    assert "PersistentVolumeClaim" not in {it["kind"] for it in given}
    (volume,) = [it for it in workload(given)["spec"]["template"]["spec"]["volumes"] if it["name"] == "audit"]
    assert volume["persistentVolumeClaim"] == {"claimName": "kept"}


def test_without_screening_nothing_of_it_is_there() -> None:
    written = str(rendered())
    assert not [word for word in ("MEDREWARD_POLICIES", "MEDREWARD_AUDIT", "/policies", "/audit") if word in written]


def test_another_model_is_another_download() -> None:
    def job(digest: str) -> str:
        files = [{"path": "a", "url": "https://x/a", "sha256": digest * 64}]
        made = rendered(model__source="download", model__download__files=files)
        return next(str(it["metadata"]["name"]) for it in made if it["kind"] == "Job")

    assert job("a") == job("a")
    assert job("a") != job("b")


def test_keys_are_a_mounted_secret_and_stand_nowhere_else() -> None:
    manifests = rendered(keys__existingSecret="ours", keys__secretKey="all")
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    assert argument(pod["containers"][0], "--keys-file") == "/etc/medreward/keys/keys.jsonl"
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "keys"]
    assert mount == {"name": "keys", "mountPath": "/etc/medreward/keys", "readOnly": True}  # a folder, so it follows
    volume = next(it for it in pod["volumes"] if it["name"] == "keys")
    assert volume["secret"] == {"secretName": "ours", "items": [{"key": "all", "path": "keys.jsonl"}]}
    assert "Secret" not in {manifest["kind"] for name in VALUE_SETS for manifest in value_set(name)}
    secret = only(value_set("external-secrets"), "ExternalSecret", "one-medreward-keys")["spec"]
    assert secret["target"]["name"] == "medreward-keys"
    assert "--insecure" in server(value_set("mesh"))["args"]
    assert "--insecure" not in pod["containers"][0]["args"]


def test_the_image_is_named_by_digest_where_one_is_given() -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert server(value_set("airgap"))["image"] == f"registry.internal/medreward@sha256:{digest}"
    assert server(value_set("gpu"))["image"] == "medreward:0.2.0-gpu"
    assert "tag" in refusal(image__tag="latest")
