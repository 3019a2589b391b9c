"""Compose: what it mounts is there, nothing is open to others or unpinned, and the parts find each other."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from commands import serving
from deploy.charts import ROOT
from deploy.monitors import Prometheus, free_port, run, started, until
from keyring import KeysFile
from medreward.api.access.keys import Scope
from medreward.settings import ENV_PREFIX, Settings

DEPLOY = ROOT / "deploy"
OVERLAYS = {"": (), "gpu": ("gpu",), "keys": ("keys",), "gpu and keys": ("gpu", "keys")}
LISTS_THAT_ADD = ("ports", "volumes", "tmpfs")
#: What a service may have: the fields of the Compose Specification that we use, by their types.
FIELDS = {
    "build": dict,
    "cap_drop": list,
    "command": list,
    "depends_on": list,
    "deploy": dict,
    "environment": dict,
    "healthcheck": dict,
    "image": str,
    "mem_limit": str,
    "pids_limit": int,
    "ports": list,
    "read_only": bool,
    "restart": str,
    "security_opt": list,
    "shm_size": str,
    "stop_grace_period": str,
    "tmpfs": list,
    "volumes": list,
}


def composed(overlays: tuple[str, ...]) -> dict[str, Any]:
    """Returns compose.yaml with its overlays, merged as the specification says."""
    files = [DEPLOY / "compose.yaml", *(DEPLOY / f"compose.{name}.yaml" for name in overlays)]
    base, *others = [yaml.safe_load(file.read_text()) for file in files]
    for other in others:
        merge(base, other)
    return dict(base)


def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and name in into:
            merge(into[name], value)
        elif name in LISTS_THAT_ADD:
            into[name] = [*into.get(name, ()), *value]
        else:
            into[name] = deepcopy(value)


@pytest.fixture(params=OVERLAYS.values(), ids=[*OVERLAYS])
def stack(request: pytest.FixtureRequest) -> dict[str, Any]:
    return composed(request.param)


@pytest.fixture
def services(stack: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return dict(stack["services"])


def mounts(services: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yields service, source and target of each volume."""
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            parts = re.fullmatch(r"(\$\{[^}]+\}[^:]*|[^:]+):([^:]+)(:ro)?", volume)
            assert parts, volume
            yield name, parts[1], parts[2]


def test_it_has_the_four_parts_and_no_field_that_compose_does_not_know(stack: dict[str, Any]) -> None:
    assert stack.keys() == {"name", "services", "volumes", "x-confined"}
    assert stack["services"].keys() == {"server", "prometheus", "alertmanager", "grafana"}
    for service in stack["services"].values():
        for name, value in service.items():
            assert isinstance(value, FIELDS[name]), name
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        assert {*service.get("depends_on", ())} <= stack["services"].keys()


def test_what_is_mounted_is_there(stack: dict[str, Any]) -> None:
    for _, source, target in mounts(stack["services"]):
        if source.startswith("./"):
            assert (DEPLOY / source).exists(), source
        elif not source.startswith("${"):
            assert source in stack["volumes"]
        assert target.startswith("/")


def test_only_this_machine_reaches_it(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 6
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_images_are_pinned_or_built_here(services: dict[str, dict[str, Any]]) -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+(-gpu)?(@sha256:[0-9a-f]{64})?$", service["image"])
        assert ("build" in service) == (name == "server")
    assert services["server"]["build"]["target"] in stages


def test_every_part_is_confined_and_says_whether_it_is_well(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["healthcheck"]["test"][0] == "CMD"
        writable = service["read_only"] is not True
        assert writable == ("gpu" in service["image"])


def test_there_is_no_secret_in_the_files() -> None:
    for file in DEPLOY.glob("compose*.yaml"):
        text = file.read_text()
        assert not re.search(r"mr_[0-9a-f]{16}_|BEGIN [A-Z ]*PRIVATE KEY", text)
        assert not re.search(r"(?i)(password|passwd|token|secret)\w*: +[\"']?[^$\s]", text)


def test_every_setting_exists(services: dict[str, dict[str, Any]]) -> None:
    server = services["server"]
    variables = [name.removeprefix(ENV_PREFIX).lower() for name in server["environment"]]
    flags = [word[2:].partition("=")[0].replace("-", "_") for word in server["command"][1:]]
    assert {*variables, *flags} <= Settings.model_fields.keys()
    # A container that is told to stop has as long as the server takes to drain, and more.
    assert int(server["stop_grace_period"].removesuffix("s")) > int(server["environment"]["MEDREWARD_DRAIN_SECONDS"])


def test_keys_are_asked_for_unless_only_this_machine_can_come() -> None:
    assert "--insecure" in composed(())["services"]["server"]["command"]
    server = composed(("keys",))["services"]["server"]
    assert "--insecure" not in server["command"]
    assert server["environment"]["MEDREWARD_KEYS_FILE"]
    assert server["environment"]["MEDREWARD_TLS_CERT"]


def test_the_parts_find_each_other(services: dict[str, dict[str, Any]]) -> None:
    (flag,) = [word for word in services["prometheus"]["command"] if word.startswith("--config.file=/etc/prometheus/")]
    config = yaml.safe_load((DEPLOY / "prometheus" / Path(flag).name).read_text())
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": ["server:8002"]}]
    assert config["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert run("promtool", "check", "config", "--syntax-only", DEPLOY / "prometheus" / Path(flag).name).returncode == 0
    assert "server" in services["server"]["environment"]["MEDREWARD_ALLOWED_HOSTS"]
    targets = {target for _, _, target in mounts(services)}
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "medreward.yml").read_text())["providers"]
    shown = {target for target in targets if target.startswith(provider["options"]["path"])}
    assert {Path(target).name for target in shown} == {file.name for file in (DEPLOY / "grafana").glob("*.json")}


@pytest.mark.slow
def test_prometheus_reads_a_server_with_keys_and_tls(tmp_path: Path) -> None:
    """The real Prometheus with the configuration of compose.keys.yaml, but for addresses and the folder of secrets."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    (tmp_path / "metrics.key").write_text(KeysFile(tmp_path / "keys.jsonl").new(scopes=[Scope.METRICS]))
    flags = (
        "--admin-host=0.0.0.0",  # on loopback metrics are open
        f"--keys-file={tmp_path}/keys.jsonl",
        f"--tls-cert={tmp_path}/tls.crt",
        f"--tls-key={tmp_path}/tls.key",
    )
    config = (DEPLOY / "prometheus" / "prometheus.keys.yml").read_text()
    with serving(tmp_path, *flags) as served:
        config = config.replace("/etc/medreward", str(tmp_path)).replace("15s", "3s")
        (tmp_path / "prometheus.yml").write_text(
            config.replace("server:8002", served.admin_url.removeprefix("http://"))
        )
        (tmp_path / "medreward.rules.yml").write_text((DEPLOY / "prometheus" / "medreward.rules.yml").read_text())
        address = f"127.0.0.1:{free_port()}"
        storage = f"--storage.tsdb.path={tmp_path}/data"
        words = (f"--config.file={tmp_path}/prometheus.yml", storage, f"--web.listen-address={address}")
        with started(tmp_path, f"http://{address}", "prometheus", *words) as url:
            prometheus = Prometheus(url)
            until(lambda: prometheus.query("medreward_ready") != [])
