"""What turns traces on, and what becomes of them where the collector does not take them."""

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from collector import Collector, collecting
from commands import ANY_PORTS, CLEAN, MEDREWARD, serving
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.tracing import is_wanted, start_tracing
from medreward.tracing.spans import Tracing
from waiting import until

ON = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOTHING = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def silence() -> Iterator[str]:
    """The URL of a host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def started(patch: pytest.MonkeyPatch, **variables: str) -> tuple[Tracing, Metrics]:
    for name, value in ({"OTEL_BSP_SCHEDULE_DELAY": "20"} | variables).items():
        patch.setenv(name, value)
    metrics = Metrics(CollectorRegistry())
    tracing = start_tracing(metrics)
    assert tracing
    return tracing, metrics


def request(tracing: Tracing, traceparent: str = "") -> bool:
    """Makes the trace of one request; returns whether there is one."""
    trace = tracing.http("POST", "http", {"traceparent": traceparent})
    if trace:
        trace.answered("/v1/score", "200", "", {})
    return trace is not None


def counted(metrics: Metrics, outcome: str) -> float:
    labels = {"kind": "spans", "outcome": outcome}
    return metrics.registry.get_sample_value("medreward_trace_records_total", labels) or 0.0


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, (False, False)),
        ({ON: NOTHING}, (True, False)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOTHING}, (True, False)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": NOTHING}, (False, False)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp"}, (True, True)),
        ({ON: NOTHING, "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "otlp"}, (False, True)),
        ({ON: NOTHING, "OTEL_LOGS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, (False, False)),
    ],
)
def test_the_variables_of_opentelemetry_alone_turn_traces_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: tuple[bool, bool]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (is_wanted("TRACES"), is_wanted("LOGS")) == wanted
    if not any(wanted):
        assert start_tracing(Metrics(CollectorRegistry())) is None


def test_without_them_nothing_of_the_sdk_is_imported() -> None:
    """FastAPI itself imports the API, which sends nothing; nothing else does."""
    code = """
import sys
def found(name): return [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]
from prometheus_client import CollectorRegistry
import medreward.engine.engine, medreward.workers.device.child, medreward.tracing
from medreward.metrics import Metrics
assert medreward.tracing.start_tracing(Metrics(CollectorRegistry())) is None
assert not found("opentelemetry"), found("opentelemetry")
import medreward.api.server
assert not found("opentelemetry.sdk") + found("opentelemetry.exporter")
"""
    subprocess.run([sys.executable, "-c", code], env=CLEAN, check=True, timeout=300)


def test_without_the_packages_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ON, NOTHING)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "medreward.tracing.export", raising=False)
    with pytest.raises(ConfigurationError, match=r"install medreward\[otel\]"):
        start_tracing(Metrics(CollectorRegistry()))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),  # fewer than are sent at once
    ],
)
def test_a_value_that_cannot_be_stops_the_start(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(ON, NOTHING)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=r"OTEL_|OpenTelemetry"):
        start_tracing(Metrics(CollectorRegistry()))


def test_a_server_that_cannot_trace_as_asked_exits_with_one_line(tmp_path: Path) -> None:
    command = [MEDREWARD, "serve", "--model", "fake", *ANY_PORTS]
    variables = CLEAN | {"OTEL_TRACES_EXPORTER": "zipkin"}
    done = subprocess.run(
        command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "OTEL_TRACES_EXPORTER is zipkin" in json.loads(line)["event"]


async def test_the_sampler_of_the_variables_decides_and_a_caller_before_it(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    variables = {ON: collector.url, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    tracing, metrics = started(monkeypatch, **variables)
    assert not request(tracing)
    trace_id = secrets.token_hex(16)
    assert request(tracing, f"00-{trace_id}-00f067aa0ba902b7-01")
    assert len(await collector.trace(trace_id)) == 1
    assert not request(tracing, f"00-{trace_id}-00f067aa0ba902b7-00")
    tracing.close()
    assert counted(metrics, "sent") == 1


async def test_spans_go_out_over_grpc_too_with_headers_and_name(
    monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    variables = {ON: collector.grpc_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_SERVICE_NAME": "scores-of-ward-3"}
    tracing, metrics = started(monkeypatch, **variables)
    assert request(tracing)
    await until(lambda: counted(metrics, "sent") == 1, 30)
    assert [span.name for span in collector.spans] == ["POST /v1/score"]
    assert collector.resource["service.name"] == "scores-of-ward-3"
    tracing.close()


def test_what_waits_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    variables = {ON: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_EXPORTER_OTLP_HEADERS": "x-token=abc"}
    tracing, _ = started(monkeypatch, **variables)
    for _ in range(3):
        request(tracing)
    tracing.close()
    assert len(collector.spans) == 3
    assert {headers["x-token"] for headers in collector.headers} == {"abc"}


@pytest.mark.parametrize("trouble", ["down", "refusing", "slow", "silent", "down over gRPC", "silent over gRPC"])
def test_a_collector_that_takes_nothing_costs_nothing_and_is_counted(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, silence: str, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = NOTHING if "down" in trouble else silence if "silent" in trouble else collector.url
    if trouble == "refusing":
        collector.status = 400
    collector.delay_s = 20 if trouble == "slow" else 0
    protocol = "grpc" if "gRPC" in trouble else "http/protobuf"
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    tracing, metrics = started(monkeypatch, **{ON: url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol} | small)
    began = time.perf_counter()
    for _ in range(1000):
        request(tracing)
    assert time.perf_counter() - began < 5  # a span takes microseconds; an attempt to send one, ten seconds
    if trouble != "refusing":  # what it refuses at once makes room again
        assert counted(metrics, "dropped") >= 1000 - 64 - 32 - 32
    began = time.perf_counter()
    tracing.close()
    assert time.perf_counter() - began < 2
    assert counted(metrics, "sent") == 0
    assert counted(metrics, "dropped") + counted(metrics, "failed") + 64 + 32 >= 1000
    warned = [record for record in caplog.records if record.levelname != "INFO"]
    assert {record.name for record in warned} <= {"medreward.tracing"}  # none of the exporters' own
    assert len(warned) <= 1
    if trouble == "refusing":
        assert "400" in vars(warned[0])["why"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_server_stops_in_time_though_the_collector_is_silent(tmp_path: Path, silence: str, protocol: str) -> None:
    variables = {ON: silence, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_SCHEDULE_DELAY": "10"}
    with serving(tmp_path, **variables) as served:
        for n in range(3):
            asked = {"question": f"{n}?", "response": "yes"}
            assert httpx.post(f"{served.url}/score", json=asked, timeout=60).status_code == 200
        began = time.perf_counter()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=60) == 0
        assert time.perf_counter() - began < 6  # less than one for the collector; the rest is that of any server
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert lines[-1]["event"] == "stopped"
    requests = [line for line in lines if line["event"] == "request"]
    assert all(re.fullmatch(r"[0-9a-f]{32}", line["trace_id"]) for line in requests if line["route"] == "/score")
