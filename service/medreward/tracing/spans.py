"""The spans of a request. Most are made when they have ended, from times that were taken on the way."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from opentelemetry import trace as otel
from opentelemetry._logs import Logger
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from medreward.types import DIMENSIONS, DeviceBatch, Scored, ScoreResponse, Trace

#: Names of gRPC's statuses for which the server is to blame, by OpenTelemetry's conventions.
RPC_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})
EVENT: Final = "gen_ai.evaluation.result"
#: Why a scored response has no score in a dimension.
NOT_OF_THE_MODEL: Final = "dimension_missing"

CLOSE_SECONDS: Final = 0.75  # with the second of a server that has nothing to do, less than two

Attributes = Mapping[str, str | int | float]

_propagator = TraceContextTextMapPropagator()


class RequestTrace(ABC):
    """What is recorded of one request, from the span of the server to the results. It is a `types.Trace`."""

    def __init__(self, tracer: otel.Tracer, logger: Logger | None, parent: Context, name: str, about: Attributes):
        self._tracer = tracer
        self._logger = logger
        self._parent = parent
        self._begun = time.monotonic()
        self._epoch_ns = time.time_ns() - round(self._begun * 1e9)  # anew for each: clocks are set, machines sleep
        begun = self._ns(self._begun)
        self._span: Span = tracer.start_span(name, parent, SpanKind.SERVER, about, start_time=begun)
        self._within = otel.set_span_in_context(self._span, Context())
        self.is_recorded = self._span.is_recording()

    @property
    def id(self) -> str:
        """The id of the trace, in hex; empty where it is not recorded."""
        return otel.format_trace_id(self.span_context.trace_id) if self.is_recorded else ""

    @property
    def span_context(self) -> SpanContext:
        """What a link to the span of the server points to."""
        return self._span.get_span_context()

    @property
    def headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        _propagator.inject(headers, self._within)
        return headers

    def phase(self, name: str, started: float, ended: float, batch: object = None) -> None:
        """Makes a span of the part of the phase that lies within the request: it may have joined what had begun."""
        if ended > self._begun:
            links = [Link(batch)] if isinstance(batch, SpanContext) else []
            self._child(name, max(started, self._begun), ended, self._within, links)

    def of_batch(self, batch: DeviceBatch, others: Iterable[Trace]) -> SpanContext:
        """Makes the span of the batch, a child of this request's that has a link to each of the others, and one of each
        of its phases. Returns what links to it."""
        links = [Link(other.span_context) for other in others if isinstance(other, RequestTrace)]
        about = {f"medreward.{name}": figure for name, figure in batch.figures.items()}
        span = self._child("batch", batch.started, batch.ended, self._within, links, about)
        within = otel.set_span_in_context(span, Context())
        for phase in batch.phases:
            self._child(*phase, within)
        return span.get_span_context()

    def scored(self, response: ScoreResponse) -> None:
        """Sends six events for each result, where events are asked for, to the span of the caller."""
        if self._logger is None:
            return
        parent = self._parent if otel.get_current_span(self._parent).get_span_context().is_valid else self._within
        for result in response.results:
            if isinstance(result, Scored):
                scores, error = result.scores, NOT_OF_THE_MODEL
            else:
                scores, error = (None,) * len(DIMENSIONS), str(result.error.code)
            for dimension, score in zip(DIMENSIONS, scores, strict=True):
                about: dict[str, str | int | float] = {
                    "gen_ai.evaluation.name": dimension,
                    "medreward.item": result.item,
                    "medreward.response": result.response,
                    "medreward.model.fingerprint": response.model.fingerprint,
                }
                about |= {"error.type": error} if score is None else {"gen_ai.evaluation.score.value": score}
                self._logger.emit(event_name=EVENT, timestamp=time.time_ns(), context=parent, attributes=about)

    def answered(self, route: str, code: str, refusal: str, about: Attributes) -> None:
        """Ends the span of the server. `code` is the HTTP status or the name of gRPC's; `refusal` is the error code of
        a request that was refused, or empty."""
        self._span.set_attributes(about)
        self._name(route, code)
        if self._is_fault(code):
            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", refusal or code)
        if refusal:
            self._span.set_attribute("medreward.refusal", refusal)
        self._span.end(self._ns(time.monotonic()))

    @abstractmethod
    def _name(self, route: str, code: str) -> None:
        """Gives the span its name and the attributes of its door."""

    @abstractmethod
    def _is_fault(self, code: str) -> bool:
        """Returns whether the code says that the server is to blame."""

    def _child(
        self,
        name: str,
        started: float,
        ended: float,
        parent: Context,
        links: Sequence[Link] = (),
        about: Attributes | None = None,
    ) -> Span:
        span = self._tracer.start_span(name, parent, attributes=about, links=links, start_time=self._ns(started))
        span.end(self._ns(ended))
        return span

    def _ns(self, monotonic: float) -> int:
        """Returns the nanoseconds since 1970 of a time of time.monotonic."""
        return self._epoch_ns + round(monotonic * 1e9)


class HttpTrace(RequestTrace):
    """The trace of an HTTP request, whose route is known when it has been answered."""

    def __init__(self, tracer: otel.Tracer, logger: Logger | None, parent: Context, method: str, scheme: str):
        self._method = method if method in METHODS else "HTTP"
        about = {"http.request.method": method if method in METHODS else "_OTHER", "url.scheme": scheme}
        super().__init__(tracer, logger, parent, self._method, about)

    def _name(self, route: str, code: str) -> None:
        if route.startswith("/"):
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", int(code))

    def _is_fault(self, code: str) -> bool:
        return code >= "500"


class RpcTrace(RequestTrace):
    """The trace of a gRPC call."""

    def _name(self, route: str, code: str) -> None:
        if route.startswith("/"):
            self._span.update_name(route[1:])
            self._span.set_attribute("rpc.method", route[1:])
        self._span.set_attribute("rpc.response.status_code", code)

    def _is_fault(self, code: str) -> bool:
        return code in RPC_FAULTS


class Tracing:
    """Begins the trace of each request that is sampled, and sends what is left when the server stops."""

    def __init__(self, tracer: otel.Tracer, logger: Logger | None, flush: Callable[[], None]):
        self._tracer = tracer
        self._logger = logger
        self._flush = flush

    def http(self, method: str, scheme: str, headers: Mapping[str, str]) -> HttpTrace | None:
        """Returns the trace of an HTTP request that begins, or None where nothing of it is to be recorded."""
        trace = HttpTrace(self._tracer, self._logger, _propagator.extract(headers, Context()), method, scheme)
        return trace if trace.is_recorded or self._logger else None

    def rpc(self, metadata: Mapping[str, str]) -> RpcTrace | None:
        """Returns the trace of a gRPC call that begins, or None where nothing of it is to be recorded."""
        parent = _propagator.extract(metadata, Context())
        trace = RpcTrace(self._tracer, self._logger, parent, "grpc", {"rpc.system.name": "grpc"})
        return trace if trace.is_recorded or self._logger else None

    def close(self) -> None:
        """Sends what waits. Returns after CLOSE_SECONDS at the latest, whatever the collector does."""
        closing = threading.Thread(target=self._flush, name="tracing-close", daemon=True)  # Python ends without it
        closing.start()
        closing.join(CLOSE_SECONDS)
