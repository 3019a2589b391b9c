"""Who may talk to whom: nobody, but for what the values name."""

from collections.abc import Iterator

import pytest

from deploy.charts import Manifest, only, pods, rendered, server, value_set

DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {
        it["metadata"]["name"].removeprefix("one-medreward-"): it["spec"]
        for it in manifests
        if it["kind"] == "NetworkPolicy"
    }


def selected(policy: Manifest, labels: dict[str, str]) -> bool:
    selector = policy["podSelector"]
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
    )


def labels_of_pods(manifests: list[Manifest]) -> Iterator[dict[str, str]]:
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["labels"]
        elif "template" in manifest.get("spec", {}):
            yield manifest["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("name", ["cpu", "download", "gate"])
def test_every_pod_is_denied_everything_that_is_not_named(name: str) -> None:
    manifests = value_set(name)
    found = policies(manifests)
    assert found["deny"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & found["deny"].keys()
    seen = [*labels_of_pods(manifests)]
    assert len(seen) >= 2
    assert all(selected(found["deny"], labels) for labels in seen)


def test_without_a_named_caller_only_the_test_and_the_gate_come_in() -> None:
    (rule,) = policies(rendered())["server"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["test", "gate"]
    assert rule["ports"] == [{"port": "rest"}, {"port": "grpc"}]


def test_the_admin_port_is_for_named_peers_alone() -> None:
    rules = policies(value_set("cpu"))["server"]["ingress"]
    assert [rule["from"] for rule in rules if {"port": "admin"} in rule["ports"]] == [
        [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    ]
    assert {"namespaceSelector": {"matchLabels": {"team": "research"}}} in rules[0]["from"]
    assert len(policies(rendered())["server"]["ingress"]) == 1


def test_the_server_connects_to_nothing_but_what_is_named() -> None:
    assert "egress" not in policies(rendered())["server"]
    named = {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 443}]}
    assert policies(value_set("external-secrets"))["server"]["egress"] == [DNS, named]


def test_the_test_and_the_gate_reach_the_server_and_nothing_else() -> None:
    egress = policies(value_set("gate"))["callers"]["egress"]
    assert egress[0] == DNS
    (peer,) = egress[1]["to"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"
    assert egress[1]["ports"] == [{"port": "rest"}]
    assert len(egress) == 2


def test_a_download_reaches_what_is_named() -> None:
    assert "download" not in policies(rendered())
    named = {"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}
    assert policies(value_set("download"))["download"]["egress"] == [DNS, named]
    for name, downloading in (("download", ["download", "gate"]), ("replica", ["download", "gate", "server", "test"])):
        (rule,) = policies(value_set(name))["download"]["podSelector"]["matchExpressions"]
        assert rule["values"] == downloading


def test_services_lead_to_the_ports_that_the_server_listens_on() -> None:
    manifests = rendered()
    ports = {port["name"]: port["containerPort"] for port in server(manifests)["ports"]}
    assert ports == {"rest": 8000, "grpc": 8001, "admin": 8002}
    for suffix, port in (("", "rest"), ("-grpc", "grpc"), ("-admin", "admin")):
        spec = only(manifests, "Service", f"one-medreward{suffix}")["spec"]
        assert [it["targetPort"] for it in spec["ports"]] == [port]
        assert spec["selector"] == only(manifests, "Deployment")["spec"]["selector"]["matchLabels"]
    assert only(manifests, "Service", "one-medreward-grpc")["spec"]["clusterIP"] == "None"
    assert "type" not in only(rendered(service__type="LoadBalancer"), "Service", "one-medreward-admin")["spec"]


def test_an_ingress_sends_one_image_to_one_pod() -> None:
    ingress = only(value_set("ingress"), "Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/upstream-hash-by"] == "$http_x_affinity_key"
    assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "67108864"
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "125"
    plain = only(rendered(ingress={"enabled": True, "host": "h", "affinity": False}), "Ingress")
    assert "nginx.ingress.kubernetes.io/upstream-hash-by" not in plain["metadata"]["annotations"]


def test_routes_of_the_gateway_api_lead_to_the_services() -> None:
    manifests = value_set("gateway")
    assert only(manifests, "HTTPRoute")["spec"]["rules"][0]["backendRefs"] == [{"name": "one-medreward", "port": 8000}]
    assert only(manifests, "GRPCRoute")["spec"]["rules"][0]["backendRefs"] == [
        {"name": "one-medreward-grpc", "port": 8001}
    ]
    policy = only(manifests, "BackendTrafficPolicy")["spec"]
    assert policy["loadBalancer"]["consistentHash"] == {"type": "Header", "header": {"name": "X-Affinity-Key"}}
    assert {(it["kind"], it["name"]) for it in policy["targetRefs"]} == {
        ("HTTPRoute", "one-medreward"),
        ("GRPCRoute", "one-medreward"),
    }


def test_prometheus_comes_with_a_key_and_checks_the_certificate() -> None:
    (endpoint,) = only(value_set("mtls"), "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"] == {"credentials": {"name": "medreward-metrics-key", "key": "key"}}
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": "rm-tls", "key": "ca.crt"}}
    assert endpoint["tlsConfig"]["cert"] == {"secret": {"name": "rm-probe", "key": "tls.crt"}}
    assert "insecureSkipVerify" not in endpoint["tlsConfig"]


def test_a_certificate_has_the_names_of_all_services() -> None:
    names = only(value_set("ingress"), "Certificate")["spec"]["dnsNames"]
    assert {"one-medreward.ns.svc", "one-medreward-grpc.ns.svc", "one-medreward-admin.ns.svc", "rm.example.org"} <= {
        *names
    }
    pod = next(spec for where, spec in pods(value_set("ingress")) if where.startswith("Deployment"))
    assert {"name": "tls", "secret": {"secretName": "one-medreward-tls"}} in pod["volumes"]
