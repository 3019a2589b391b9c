"""The trace that the caller's program is in, if it makes traces by OpenTelemetry."""

import sys


def trace_headers() -> dict[str, str]:
    """Returns the headers, or gRPC metadata, by which a server continues the caller's trace: `traceparent`, and
    `tracestate` where there is one. Empty in a program that has not imported OpenTelemetry, or is in no span."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers
