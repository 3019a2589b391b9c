"""A collector of traces: it takes real OTLP over HTTP and gRPC on loopback, and keeps what it got."""

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from waiting import until

SERVER = Span.SPAN_KIND_SERVER
ADD: Any = add_TraceServiceServicer_to_server  # generated without types


def attributes(record: Span | LogRecord) -> dict[str, Any]:
    return _plain(record.attributes)


def seconds(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@dataclass
class Collector:
    """`status` is what it answers over HTTP, after `delay_s`."""

    url: str = ""
    grpc_url: str = ""
    status: int = 200
    delay_s: float = 0.0
    spans: list[Span] = field(default_factory=list)
    events: list[LogRecord] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, once that of the server is there, which comes last."""
        id_ = bytes.fromhex(trace_id)
        await until(lambda: any(span.kind == SERVER and span.trace_id == id_ for span in self.spans), 30)
        return [span for span in self.spans if span.trace_id == id_]

    def take_spans(self, asked: ExportTraceServiceRequest) -> None:
        for of_resource in asked.resource_spans:
            self.resource = _plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += of_scope.spans

    def take_events(self, asked: ExportLogsServiceRequest) -> None:
        for of_resource in asked.resource_logs:
            for of_scope in of_resource.scope_logs:
                self.events += of_scope.log_records


class OverGrpc(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802  # the name that gRPC calls
        self._collector.take_spans(request)
        return ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector on ports of its own."""
    collector = Collector()

    class OverHttp(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.headers.append(dict(self.headers))
            time.sleep(collector.delay_s)
            if collector.status == 200:
                collector.bodies.append(body)
                if self.path == "/v1/traces":
                    collector.take_spans(ExportTraceServiceRequest.FromString(body))
                else:
                    collector.take_events(ExportLogsServiceRequest.FromString(body))
            self.send_response(collector.status)
            self.end_headers()
            self.wfile.write(ExportLogsServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    over_http = ThreadingHTTPServer(("127.0.0.1", 0), OverHttp)
    over_http.daemon_threads = True
    over_grpc = grpc.server(futures.ThreadPoolExecutor(2))
    ADD(OverGrpc(collector), over_grpc)
    collector.url = f"http://127.0.0.1:{over_http.server_port}"
    collector.grpc_url = f"http://127.0.0.1:{over_grpc.add_insecure_port('127.0.0.1:0')}"
    over_grpc.start()
    threading.Thread(target=over_http.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        over_http.shutdown()
        over_http.server_close()
        over_grpc.stop(None)


def _plain(pairs: Any) -> dict[str, Any]:
    def value(of: AnyValue) -> Any:
        return getattr(of, of.WhichOneof("value") or "string_value")

    return {one.key: value(one.value) for one in pairs}
