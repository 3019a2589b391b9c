"""An image host gets the headers that let its trace continue ours."""

import secrets

import pytest
import trustme
from prometheus_client import CollectorRegistry

import pictures
from collector import Collector
from hostile.site import page, site_at
from medreward.engine.images.fetch import Allowance, Fetcher
from medreward.metrics import Metrics
from medreward.tracing import start_tracing


async def test_the_host_of_an_image_is_sent_the_trace(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracing = start_tracing(Metrics(CollectorRegistry()))
    assert tracing
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": "vendor=opaque"}
    trace = tracing.http("POST", "http", headers)
    assert trace
    async with site_at(trustme.CA()) as site:
        site.pages["/scan"] = page(pictures.jpeg())
        fetcher = Fetcher([f"127.0.0.1:{site.port}"], True, 100_000, 10, site.trusted())
        for allowance in (Allowance(100_000, trace), Allowance(100_000)):
            assert await fetcher.fetch(f"https://127.0.0.1:{site.port}/scan", allowance) == pictures.jpeg()
        fetcher.close()
    trace.answered("/v1/score", "200", "", {})
    tracing.close()
    spans = {span.name: span for span in collector.spans}
    traced, untraced = (dict(line.split(": ", 1) for line in head.splitlines()[1:] if line) for head in site.requests)
    assert traced["traceparent"] == f"00-{trace_id}-{spans['POST /v1/score'].span_id.hex()}-01"
    assert traced["tracestate"] == "vendor=opaque"
    assert "traceparent" not in untraced
    assert spans["fetch"].parent_span_id == spans["POST /v1/score"].span_id
