"""What the collector gets of a request."""

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import pictures
from collector import SERVER, Collector, attributes, seconds
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS
from serving import Server
from waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()
IMAGE = base64.b64encode(pictures.jpeg(1)).decode()


def caller() -> tuple[str, dict[str, str]]:
    """The id of a new trace, and the headers that continue it from a caller's span."""
    trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": "vendor=opaque"}


def body(word: str, responses: int = 2, image: str | None = IMAGE) -> dict[str, Any]:
    answers = [f"{word} {n}" for n in range(responses)]
    return {"items": [{"question": f"{word}?", "responses": answers, **({"image": image} if image else {})}]}


def named(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span.name == name]
    return span


def covered(spans: list[Span]) -> float:
    """Seconds in which at least one of the spans ran."""
    total, reached = 0, 0
    for start, end in sorted((span.start_time_unix_nano, span.end_time_unix_nano) for span in spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total / 1e9


async def test_one_trace_shows_the_door_the_decoder_the_queue_and_the_device(
    traced: Server, collector: Collector
) -> None:
    trace_id, headers = caller()
    reply = await traced.rest.post("/v1/score", json=body("tree"), headers=headers)
    spans = await collector.trace(trace_id)
    served = named(spans, "POST /v1/score")
    assert served.kind == SERVER
    assert served.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {span.trace_state for span in spans} == {"vendor=opaque"}
    parents = {span.name: span.parent_span_id for span in spans}
    assert parents.keys() == {served.name, "decode", "queue", "inference", "batch", "prompt", "answers"}
    for name in ("decode", "queue", "inference", "batch"):
        assert parents[name] == served.span_id
    batch = named(spans, "batch")
    assert parents["prompt"] == parents["answers"] == batch.span_id
    assert [link.span_id for link in named(spans, "inference").links] == [batch.span_id]
    for span in spans:
        assert served.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= served.end_time_unix_nano
    timings = reply.json()["timings_ms"]
    for phase in ("decode", "queue", "inference"):
        assert seconds(named(spans, phase)) * 1000 == pytest.approx(timings[phase], abs=1)


async def test_the_spans_cover_the_latency_that_a_client_measures(traced: Server, collector: Collector) -> None:
    of_latency, of_total = [], []
    for n in range(5):  # some of it may be the client's, on a busy machine
        trace_id, headers = caller()
        began = time.perf_counter()
        reply = await traced.rest.post("/v1/score", json=body(f"cover {n}"), headers=headers)
        latency = time.perf_counter() - began
        spans = await collector.trace(trace_id)
        of_latency.append(covered(spans) / latency)
        phases = [span for span in spans if span.kind != SERVER]
        of_total.append(covered(phases) * 1000 / reply.json()["timings_ms"]["total"])
    assert max(of_latency) >= 0.95, of_latency
    assert max(of_total) >= 0.95, of_total


async def test_requests_in_one_batch_share_its_span(traced: Server, collector: Collector) -> None:
    callers = [caller() for _ in range(3)]
    asked = [
        traced.rest.post("/v1/score", json=body(f"batch {n}", image=None), headers=headers)
        for n, (_, headers) in enumerate(callers)
    ]
    first = asyncio.create_task(traced.rest.post("/v1/score", json=body("ahead", image=None)))  # the device is busy
    await asyncio.sleep(0.03)
    await asyncio.gather(first, *asked)
    traces = [await collector.trace(trace_id) for trace_id, _ in callers]
    batches = [span for spans in traces for span in spans if span.name == "batch"]
    servers = {named(spans, "POST /v1/score").span_id for spans in traces}
    assert servers == {
        id_ for batch in batches for id_ in (batch.parent_span_id, *(link.span_id for link in batch.links))
    }
    assert sum(attributes(batch)["medreward.batch.responses"] for batch in batches) == 6
    ran_in = {named(spans, "inference").links[0].span_id for spans in traces}
    assert ran_in == {batch.span_id for batch in batches}
    assert len(batches) < 3


async def test_a_request_that_joins_another_has_the_part_of_its_wait_that_is_its_own(
    traced: Server, collector: Collector
) -> None:
    callers = [caller(), caller()]
    same = body("the same", image=None)
    first = asyncio.create_task(traced.rest.post("/v1/score", json=same, headers=callers[0][1]))
    await asyncio.sleep(0.05)
    await asyncio.gather(first, traced.rest.post("/v1/score", json=same, headers=callers[1][1]))
    ran, joined = [await collector.trace(trace_id) for trace_id, _ in callers]
    assert seconds(named(joined, "inference")) < seconds(named(ran, "inference"))
    assert named(joined, "inference").links[0].span_id == named(ran, "batch").span_id
    assert "batch" not in {span.name for span in joined}


@pytest.mark.parametrize("given", ["", "00-zz", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{'1' * 32}-{'2' * 16}-01"])
async def test_a_header_that_is_no_traceparent_begins_a_trace(traced: Server, collector: Collector, given: str) -> None:
    reply = await traced.rest.post("/v1/score", json={}, headers={"traceparent": given})
    problem = reply.json()
    (served,) = [span for span in await collector.trace(problem["trace_id"]) if span.kind == SERVER]
    assert served.parent_span_id == b""
    about = attributes(served)
    assert (about["http.response.status_code"], about["medreward.refusal"]) == (422, problem["code"])
    assert served.status.code == Status.STATUS_CODE_UNSET  # the caller is to blame


async def test_a_caller_that_does_not_sample_gets_no_trace(traced: Server, collector: Collector) -> None:
    trace_id, headers = caller()
    headers["traceparent"] = headers["traceparent"].removesuffix("01") + "00"
    reply = await traced.rest.post("/v1/score", json={}, headers=headers)
    assert "trace_id" not in reply.json()
    after, headers = caller()
    await traced.rest.post("/v1/score", json=body("after"), headers=headers)
    await collector.trace(after)
    assert bytes.fromhex(trace_id) not in {span.trace_id for span in collector.spans}


async def test_over_grpc_a_call_and_a_stream_continue_the_trace(traced: Server, collector: Collector) -> None:
    item = pb.Item(question="over gRPC?", responses=["yes"])
    trace_id, metadata = caller()
    await traced.stub.Score(pb.ScoreRequest(items=[item]), metadata=tuple(metadata.items()))
    spans = await collector.trace(trace_id)
    served = named(spans, "medreward.v1.RewardService/Score")
    assert served.parent_span_id.hex() == "00f067aa0ba902b7"
    about = attributes(served)
    assert (about["rpc.system.name"], about["rpc.response.status_code"]) == ("grpc", "OK")
    assert named(spans, "inference").parent_span_id == served.span_id

    trace_id, metadata = caller()
    messages = [pb.ScoreRequest(items=[pb.Item(question=f"streamed {n}?", responses=["yes"])]) for n in range(2)]
    async for _ in traced.stub.ScoreStream(iter(messages), metadata=tuple(metadata.items())):
        pass
    spans = await collector.trace(trace_id)
    assert named(spans, "medreward.v1.RewardService/ScoreStream")
    assert [span.name for span in spans].count("queue") in (1, 2)  # by whether they shared a batch


async def test_a_refused_call_names_its_trace(traced: Server, collector: Collector) -> None:
    _, metadata = caller()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await traced.stub.Score(pb.ScoreRequest(lane="none"), metadata=tuple(metadata.items()))
    trace_id = dict(caught.value.trailing_metadata() or ())["x-trace-id"]
    about = attributes(named(await collector.trace(str(trace_id)), "medreward.v1.RewardService/Score"))
    assert (about["rpc.response.status_code"], about["medreward.refusal"]) == ("INVALID_ARGUMENT", "invalid_field")


async def test_the_trainers_routes_and_the_screen_are_traced_to_the_device(
    traced: Server, collector: Collector
) -> None:
    for path, asked in (
        ("/classify", {"input": ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nclassified"]}),
        ("/v1/screen", {"question": "screened?", "response": "yes"}),
        ("/v2/models/fake/infer", oip("question", "response")),
    ):
        trace_id, headers = caller()
        assert (await traced.rest.post(path, json=asked, headers=headers)).status_code == 200
        assert named(await collector.trace(trace_id), "inference")


def oip(*inputs: str) -> dict[str, Any]:
    return {
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [f"{name} of OIP"]} for name in inputs]
    }


async def test_six_events_of_each_response_go_to_the_span_of_the_caller(traced: Server, collector: Collector) -> None:
    trace_id, headers = caller()
    asked = body("events", responses=1, image=None)
    asked["items"][0]["responses"].append("\0")  # cannot be scored
    results = (await traced.rest.post("/v1/score", json=asked, headers=headers)).json()["results"]

    def of_trace() -> list[Any]:
        return [event for event in collector.events if event.trace_id.hex() == trace_id]

    await until(lambda: len(of_trace()) == 12, 30)
    assert {(event.event_name, event.span_id.hex()) for event in of_trace()} == {
        ("gen_ai.evaluation.result", "00f067aa0ba902b7")
    }
    about = [attributes(event) for event in of_trace()]
    scored = {one["gen_ai.evaluation.name"]: one for one in about if one["medreward.response"] == 0}
    assert {name: one["gen_ai.evaluation.score.value"] for name, one in scored.items()} == results[0]["scores"]
    failed = [one for one in about if one["medreward.response"] == 1]
    assert sorted(one["gen_ai.evaluation.name"] for one in failed) == sorted(DIMENSIONS)
    assert {one["error.type"] for one in failed} == {results[1]["error"]["code"]}
    assert not any("gen_ai.evaluation.score.value" in one for one in failed)


async def test_the_page_names_every_span_and_attribute_and_no_other(traced: Server, collector: Collector) -> None:
    trace_id, headers = caller()
    await traced.rest.post("/v1/score", json=body("pinned"), headers=headers)
    await traced.stub.Score(pb.ScoreRequest(items=[pb.Item(question="pinned?", responses=["yes"])]))
    spans = await collector.trace(trace_id)
    seen: dict[str, set[str]] = {}
    for span in collector.spans:
        kind = span.name if span.kind != SERVER else "gRPC" if "rpc.system.name" in attributes(span) else "HTTP"
        seen.setdefault(kind, set()).update(attributes(span))
    assert spans
    assert collector.resource.items() >= {"service.name": "medreward"}.items()
    told = table_of_attributes(PAGE)
    for kind, names in seen.items():
        assert names <= told[kind], kind
    must = {"http.route", "medreward.batch.cost", "rpc.method", "medreward.model.fingerprint"}
    assert must <= set().union(*seen.values())


def table_of_attributes(page: str) -> Mapping[str, set[str]]:
    rows = re.findall(r"^\| `?([A-Za-z]+)`? \| .* \| (.*) \|$", page, re.MULTILINE)
    return {span: set(re.findall(r"`([a-z_.]+)`", names)) for span, names in rows}


async def test_fastapi_makes_no_spans_of_its_own(traced: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would as soon as the process has a provider, as under `opentelemetry-instrument`, and name path and query."""
    kept, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    for client in (traced.rest, traced.admin):
        assert (await client.get("/openapi.json?patient=Zoe")).status_code == 200
    assert kept.get_finished_spans() == ()


async def test_what_became_of_the_spans_is_counted(traced: Server, collector: Collector) -> None:
    shown = (await traced.admin.get("/metrics")).text
    (sent,) = re.findall(r'^medreward_trace_records_total{kind="spans",outcome="sent"} (\S+)$', shown, re.MULTILINE)
    assert float(sent) > 0
    assert 'medreward_trace_records_total{kind="spans",outcome="dropped"} 0.0' in shown
    assert not [span for span in collector.spans if "metrics" in span.name]  # nobody looks for scrapes in a trace


async def test_audit_log_names_the_trace_of_a_decision(traced: Server) -> None:
    trace_id, headers = caller()
    body = {"question": "screened and traced?", "response": "yes"}
    reply = await traced.rest.post("/v1/screen", json=body, headers=headers)
    assert traced.screening.audit
    assert entry_of(traced.engine.settings.audit, reply.json()["decision_id"])["trace_id"] == trace_id


def entry_of(log: Path | None, decision_id: str) -> dict[str, Any]:
    assert log
    entries = map(json.loads, log.read_text().splitlines())
    return next(entry for entry in entries if entry.get("decision_id") == decision_id)
