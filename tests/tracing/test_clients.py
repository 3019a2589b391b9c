"""The client and a judge's caller pass the trace on in which they are called."""

import asyncio
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id

from clients.canned import Answer, Request, canned
from collector import Collector
from medreward.bench.chat import Chat
from medreward.clients import AsyncClient, Client
from serving import Server
from tracing.test_spans import named

TRACER = TracerProvider().get_tracer("a trainer")


@pytest.mark.parametrize("door", ["http", "grpc"])
async def test_the_servers_span_is_a_child_of_the_span_that_asked(
    traced: Server, collector: Collector, door: str
) -> None:
    url = f"http://127.0.0.1:{traced.port}" if door == "http" else f"grpc://{traced.grpc_target}"
    async with AsyncClient(url) as client:
        with TRACER.start_as_current_span("reward") as span:
            await client.score(None, f"over {door}?", ["yes"])
    spans = await collector.trace(format_trace_id(span.get_span_context().trace_id))
    served = named(spans, "POST /score" if door == "http" else "medreward.v1.RewardService/Score")
    assert int.from_bytes(served.parent_span_id) == span.get_span_context().span_id


async def test_the_client_for_programs_without_asyncio_passes_it_on_too(traced: Server, collector: Collector) -> None:
    def asked() -> int:
        with Client(f"http://127.0.0.1:{traced.port}") as client, TRACER.start_as_current_span("reward") as span:
            client.score(None, "from a thread?", ["yes"])
        return span.get_span_context().trace_id

    spans = await collector.trace(format_trace_id(await asyncio.to_thread(asked)))
    assert named(spans, "POST /score")


def test_a_program_without_opentelemetry_stays_without() -> None:
    program = (
        "import sys; from medreward.clients import Client; from medreward.clients.tracing import trace_headers; "
        "print(trace_headers(), any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "{} False\n"


async def test_a_judge_gets_the_trace_of_who_runs_the_benchmark() -> None:
    def answer(request: Request) -> Answer:
        return 200, {}, b'{"choices": [{"message": {"content": "A"}}]}'

    async with canned(answer) as judge:
        chat = Chat(judge.url, None, 1, 1.0)
        with TRACER.start_as_current_span("release") as span:
            await chat.ask({}, {})
        await chat.ask({}, {})
        await chat.aclose()
    inside, outside = (request.headers for request in judge.asked)
    assert inside["traceparent"].split("-")[1] == format_trace_id(span.get_span_context().trace_id)
    assert "traceparent" not in outside
