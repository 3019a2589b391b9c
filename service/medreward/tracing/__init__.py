"""Traces of requests by OpenTelemetry, for a server whose environment asks for them. OpenTelemetry's own variables are
the settings. Nothing of its SDK is imported unless they ask."""

import os
from typing import TYPE_CHECKING, Final

from medreward.errors import ConfigurationError
from medreward.metrics import Metrics

if TYPE_CHECKING:
    from medreward.tracing.spans import Tracing

SIGNALS: Final = ("TRACES", "LOGS")
EXPORTERS: Final = ("otlp", "none")


def start_tracing(metrics: Metrics) -> "Tracing | None":
    """Returns what makes the traces, or None where the environment asks for none.

    Fails with a ConfigurationError where it asks for something that this server cannot do, or where the packages for it
    are not installed.
    """
    wanted = {signal: is_wanted(signal) for signal in SIGNALS}
    if not any(wanted.values()):
        return None
    try:
        from medreward.tracing.export import start
    except ImportError:
        raise ConfigurationError(
            "the environment asks for OpenTelemetry traces, whose packages are not installed: install medreward[otel], "
            "or set OTEL_SDK_DISABLED=true"
        ) from None
    return start(metrics, spans=wanted["TRACES"], events=wanted["LOGS"])


def is_wanted(signal: str) -> bool:
    """Returns whether the environment asks for this signal. Traces are asked for by an endpoint alone, too; log events
    only by their exporter. Fails with a ConfigurationError for an exporter that there is not."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    variable = f"OTEL_{signal}_EXPORTER"
    exporter = os.environ.get(variable, "").strip()
    if exporter and exporter not in EXPORTERS:
        raise ConfigurationError(f"{variable} is {exporter}, and this server knows {' and '.join(EXPORTERS)} alone")
    if exporter or signal != "TRACES":
        return exporter == "otlp"
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(endpoint) for endpoint in endpoints)
