"""Sends spans and events to the collector that OpenTelemetry's variables name, and counts what becomes of them."""

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from medreward import __version__
from medreward.errors import ConfigurationError
from medreward.metrics import Metrics
from medreward.tracing.spans import Tracing

log = logging.getLogger("medreward.tracing")

PROTOCOLS: Final = ("http/protobuf", "grpc")
ROOM: Final = 2048  # spans or events that wait, by OpenTelemetry's own default
QUIET_SECONDS: Final = 60.0  # between two lines about a collector that does not take what is sent


class LastLines(logging.Handler):
    """Keeps the last two lines of the exporters, who have one for each attempt: they say why nothing is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=2)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def __str__(self) -> str:
        return " ".join(self._lines)


class Tally:
    """Counts the spans, or the events, that are sent, that fail and that find no room."""

    def __init__(self, kind: str, room: int, metrics: Metrics, exporters: LastLines) -> None:
        self._kind = kind
        self._exporters = exporters
        self._room = room
        self._counted = metrics.trace_records
        # Each is written by one thread: the first by the one that makes them, the second by the one that sends them.
        self._admitted = self._ended = 0
        self._told = -QUIET_SECONDS

    def admits(self) -> bool:
        """Returns whether one more may wait; counts it as dropped where there is no room."""
        if self._admitted - self._ended >= self._room:
            self._counted.labels(self._kind, "dropped").inc()
            return False
        self._admitted += 1
        return True

    def end(self, count: int, sent: bool) -> None:
        """Notes how sending so many of them ended. A failure has a line in the log, but one a minute."""
        self._ended += count
        self._counted.labels(self._kind, "sent" if sent else "failed").inc(count)
        if not sent and time.monotonic() - self._told >= QUIET_SECONDS:
            self._told = time.monotonic()
            about = {"kind": self._kind, "lost": count, "why": str(self._exporters)}
            log.warning("the collector of traces does not take what is sent", extra=about)


class Spans(BatchSpanProcessor):
    def __init__(self, tally: Tally, room: int) -> None:
        super().__init__(SentSpans(tally), max_queue_size=room)
        self._tally = tally

    def on_end(self, span: ReadableSpan) -> None:
        if self._tally.admits():
            super().on_end(span)


class SentSpans(SpanExporter):
    """The exporter that the variables ask for, with its outcomes counted."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._exporter: SpanExporter
        if protocol("TRACES") == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_exporter

            self._exporter = grpc_exporter.OTLPSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_exporter

            self._exporter = http_exporter.OTLPSpanExporter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._tally.end(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Events(BatchLogRecordProcessor):
    def __init__(self, tally: Tally, room: int) -> None:
        super().__init__(SentEvents(tally), max_queue_size=room)
        self._tally = tally

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if self._tally.admits():
            super().on_emit(log_record)


class SentEvents(LogRecordExporter):
    """The exporter that the variables ask for, with its outcomes counted."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._exporter: Any
        if protocol("LOGS") == "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_exporter

            self._exporter = grpc_exporter.OTLPLogExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_exporter

            self._exporter = http_exporter.OTLPLogExporter()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result: LogRecordExportResult = LogRecordExportResult.FAILURE
        try:
            result = self._exporter.export(batch)
        finally:
            self._tally.end(len(batch), result is LogRecordExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """It keeps nothing back."""
        return True


def start(metrics: Metrics, spans: bool, events: bool) -> Tracing:
    """Starts what sends the spans and the events that are wanted. Fails with a ConfigurationError for a variable whose
    value cannot be. No provider becomes that of the process: what other packages would send is not ours to send."""
    exporters = LastLines()
    theirs = logging.getLogger("opentelemetry.exporter")
    theirs.handlers, theirs.propagate = [exporters], False
    resource = Resource.create(
        {"service.name": "medreward", "service.version": __version__, **OTELResourceDetector().detect().attributes}
    )
    sampler = None if spans else ALWAYS_OFF  # None: the one that the variables name
    tracers = TracerProvider(sampler, resource, shutdown_on_exit=False)
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    try:
        if spans:
            room = room_of("OTEL_BSP_MAX_QUEUE_SIZE")
            tracers.add_span_processor(Spans(Tally("spans", room, metrics, exporters), room))
        if events:
            room = room_of("OTEL_BLRP_MAX_QUEUE_SIZE")
            loggers.add_log_record_processor(Events(Tally("events", room, metrics, exporters), room))
    except ValueError as error:
        raise ConfigurationError(f"a variable of OpenTelemetry has a value that it cannot have: {error}") from None
    log.info("traces are sent", extra={"spans": spans, "events": events})

    def flush() -> None:
        tracers.shutdown()
        loggers.shutdown()

    return Tracing(
        tracers.get_tracer("medreward", __version__),
        loggers.get_logger("medreward", __version__) if events else None,
        flush,
    )


def protocol(signal: str) -> str:
    """Returns the protocol for a signal. Fails with a ConfigurationError for one that there is not."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if chosen := os.environ.get(name, "").strip():
            if chosen not in PROTOCOLS:
                raise ConfigurationError(f"{name} is {chosen}, and this server knows {' and '.join(PROTOCOLS)} alone")
            return chosen
    return PROTOCOLS[0]


def room_of(variable: str) -> int:
    """Returns how many records may wait. Fails with a ValueError where the variable is no number."""
    return int(os.environ.get(variable) or ROOM)
