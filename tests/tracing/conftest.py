"""A collector, and a server in this process that sends it its traces."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from collector import Collector, collecting
from medreward.backends.fake import FAKE_MANIFEST
from medreward.metrics import Metrics
from medreward.tracing import start_tracing
from policies import policy_text, publish, threshold
from serving import Server, running


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
async def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server of the fake backend in processes, with a screening policy; its events go to the collector too."""
    policies = tmp_path_factory.mktemp("policies")
    publish(policies, policy_text(threshold("all", "allow", -99.0), fingerprint=FAKE_MANIFEST.fingerprint))
    (policies / "strict" / "current").write_text("1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_LOGS_EXPORTER", "otlp")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "20")
        metrics = Metrics(CollectorRegistry())
        tracing = start_tracing(metrics)
    assert tracing
    given: dict[str, Any] = {"isolation": "process", "fake_delay_ms": 100, "policies": policies}
    given["audit"] = policies.parent / "audit.jsonl"
    async with running(tracing=tracing, metrics=metrics, **given) as server:
        yield server
    tracing.close()
