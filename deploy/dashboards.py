"""Writes the dashboards of deploy/grafana into a folder: `python deploy/dashboards.py FOLDER`.

A dashboard is a list of rows, a row a title and panels, a panel a title, a unit and queries with their legends.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: What a query looks at: one release, and the pods that are chosen. A Prometheus without namespaces is one too.
HERE: Final = 'namespace=~"$namespace",job="$job",instance=~"$instance"'
WINDOW: Final = "$__rate_interval"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
VERSION: Final = 1  # of the dashboards; raise it when one changes
WIDTH: Final = 24

#: Metrics that no panel shows, and why. The text panel of the release dashboard is made from this.
NOT_SHOWN: Final = {
    "*_created": "when each series began; the client library writes it beside every counter and histogram",
    "process_*": "the front's own process under the names that every dashboard knows; `medreward_process_*` has it too",
    "medreward_process_virtual_memory_bytes": "address space, which says nothing about memory that is used",
    "medreward_audit_seq": "the number of the last entry in the audit log",
}


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    about: str = ""


def rate(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{HERE}{more}}}[{WINDOW}]))"


def in_an_hour(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{{{HERE}{more}}}[1h]))"


def gauge(metric: str, by: str = "instance", how: str = "sum") -> str:
    return f"{how} by ({by}) ({metric}{{{HERE}}})"


def quantiles(metric: str, by: str = "", levels: Sequence[float] = (0.5, 0.95, 0.99), more: str = "") -> list[Query]:
    groups = ", ".join(filter(None, ("le", by)))
    name = f"{{{{{by}}}}} " if by else ""
    return [
        Query(f"histogram_quantile({level}, {rate(f'{metric}_bucket', groups, more)})", f"{name}p{round(level * 100)}")
        for level in levels
    ]


def ratio(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def by_model(metric: str, more: str = "", by: str = "fingerprint") -> str:
    """The rate of a metric for each model that serves."""
    model = f"on (namespace, job, instance) group_left (fingerprint) medreward_build_info{{{HERE}}}"
    return f"sum by ({by}) (rate({metric}{{{HERE}{more}}}[{WINDOW}]) * {model})"


def mean(metric: str, by: str) -> str:
    return ratio(rate(f"{metric}_sum", by), rate(f"{metric}_count", by))


def bounded(title: str, unit: str, metric: str) -> Panel:
    """A gauge and its limit."""
    return Panel(
        title, unit, [Query(gauge(metric), "{{instance}}"), Query(gauge(f"{metric}_limit", how="max"), "limit")]
    )


NO_STREAMS: Final = ',route!~".*Stream"'

SERVING: Final = {
    "Requests by lane": [
        Panel("Rate", "reqps", [Query(rate("medreward_requests_total", "lane"), "{{lane}}")]),
        Panel(
            "Other answers than a success",
            "reqps",
            [Query(rate("medreward_requests_total", "lane, code", ',code!~"2..|OK"'), "{{lane}} {{code}}")],
        ),
        Panel("Duration", "s", quantiles("medreward_request_duration_seconds", "lane", more=NO_STREAMS)),
        Panel("Rate by route", "reqps", [Query(rate("medreward_requests_total", "route"), "{{route}}")]),
        Panel("Refused as a whole", "reqps", [Query(rate("medreward_refused_total", "reason"), "{{reason}}")]),
        Panel("In flight", "short", [Query(gauge("medreward_requests_in_flight"), "{{instance}}")]),
        bounded("gRPC calls", "short", "medreward_grpc_calls"),
        bounded("Bytes of requests in memory", "bytes", "medreward_request_bytes"),
    ],
    "Queue": [
        Panel(
            "Cost that waits or runs",
            "short",
            [
                Query(gauge("medreward_queue_cost", "lane"), "{{lane}}"),
                Query(f"sum(medreward_queue_cost_limit{{{HERE}}})", "limit"),
            ],
            about="In tokens. Autoscaling follows it.",
        ),
        Panel(
            "Pixels that wait for a decoder",
            "short",
            [
                Query(gauge("medreward_queue_pixels", "lane"), "{{lane}}"),
                Query(f"sum(medreward_queue_pixels_limit{{{HERE}}})", "limit"),
            ],
        ),
        Panel("Wait", "s", quantiles("medreward_queue_wait_seconds", "lane", (0.5, 0.99))),
    ],
    "Batches": [
        Panel("Responses by outcome", "reqps", [Query(rate("medreward_items_total", "outcome"), "{{outcome}}")]),
        Panel(
            "Responses in a batch",
            "short",
            [
                *quantiles("medreward_batch_items", levels=(0.5, 0.9)),
                Query(mean("medreward_batch_items", "instance"), "mean {{instance}}"),
            ],
        ),
        Panel("Time of a batch on the device", "s", quantiles("medreward_inference_duration_seconds")),
        Panel("Time of an image in a decoder", "s", quantiles("medreward_decode_duration_seconds")),
        Panel(
            "Computed anew",
            "ops",
            [
                Query(rate("medreward_image_encodes_total", "instance"), "images {{instance}}"),
                Query(rate("medreward_prefix_runs_total", "instance"), "prompts {{instance}}"),
            ],
        ),
    ],
    "Caches": [
        Panel(
            "Found",
            "percentunit",
            [
                Query(
                    ratio(rate("medreward_cache_hits_total", "cache"), rate("medreward_cache_requests_total", "cache")),
                    "{{cache}}",
                )
            ],
        ),
        bounded("Image store", "bytes", "medreward_image_store_bytes"),
        bounded("Score cache", "bytes", "medreward_score_cache_bytes"),
        bounded("Pixel cache", "bytes", "medreward_pixel_cache_bytes"),
    ],
    "Processes": [
        Panel("Cores used", "short", [Query(rate("medreward_process_cpu_seconds_total", "role"), "{{role}}")]),
        Panel(
            "Memory",
            "bytes",
            [Query(gauge("medreward_process_resident_memory_bytes", "instance, role"), "{{instance}} {{role}}")],
        ),
        Panel(
            "File descriptors",
            "percentunit",
            [
                Query(
                    ratio(
                        gauge("medreward_process_open_fds", "instance, role", "max"),
                        gauge("medreward_process_max_fds", "instance, role", "max"),
                    ),
                    "{{instance}} {{role}}",
                )
            ],
        ),
    ],
}

SCORES: Final = {
    "Scores": [
        Panel(
            "Mean score",
            "short",
            [Query(mean("medreward_score", "dimension"), "{{dimension}}")],
            about="0.5 is the median answer of the calibration pool.",
        ),
        Panel("Median score", "short", quantiles("medreward_score", "dimension", (0.5,))),
        Panel("Lowest and highest tenth of scores", "short", quantiles("medreward_score", "dimension", (0.1, 0.9))),
        Panel(
            "Distribution of overall scores",
            "short",
            [Query(rate("medreward_score_bucket", "le", ',dimension="overall"'), "{{le}}")],
            "heatmap",
        ),
    ],
    "Uncertainty": [
        Panel("Mean uncertainty", "short", [Query(mean("medreward_uncertainty", "dimension"), "{{dimension}}")]),
        Panel("Highest tenth of uncertainties", "short", quantiles("medreward_uncertainty", "dimension", (0.9,))),
    ],
    "What is unusual": [
        Panel("Responses by flag", "reqps", [Query(rate("medreward_flags_total", "flag"), "{{flag}}")]),
        Panel(
            "Share of responses with a flag",
            "percentunit",
            [
                Query(
                    f"{rate('medreward_flags_total', 'flag')} / on () group_left () "
                    f'sum(rate(medreward_items_total{{{HERE},outcome="ok"}}[{WINDOW}]))',
                    "{{flag}}",
                )
            ],
        ),
        Panel(
            "NaN or infinity, in an hour",
            "short",
            [Query(in_an_hour("medreward_nonfinite_scores_total", "instance"), "{{instance}}")],
        ),
        Panel(
            "Unscored answers filled for trainers",
            "reqps",
            [Query(rate("medreward_filled_total", "route"), "{{route}}")],
        ),
    ],
    "Screening": [
        Panel(
            "Verdicts", "reqps", [Query(rate("medreward_verdicts_total", "policy, verdict"), "{{policy}} {{verdict}}")]
        ),
        Panel(
            "Decisions that the audit log could not take, in an hour",
            "short",
            [
                Query(in_an_hour("medreward_audit_refused_total", "instance"), "{{instance}} refused"),
                Query(in_an_hour("medreward_audit_lost_total", "instance"), "{{instance}} answered"),
            ],
        ),
        Panel(
            "Time of a write to the audit log",
            "s",
            quantiles("medreward_audit_write_duration_seconds", "instance", (0.5, 0.99)),
        ),
        Panel(
            "Drift: evidence",
            "short",
            [Query(gauge("medreward_drift_statistic", "dimension", "max"), "{{dimension}}")],
            about="0: none. From 1 on an alarm. It falls again when what is new has become usual.",
        ),
        Panel(
            "Drift: alarms",
            "short",
            [Query(gauge("medreward_drift_alarm", "dimension", "max"), "{{dimension}}")],
            about="1 until it is reset: POST /admin/drift/reset.",
        ),
        Panel(
            "Shadow: verdicts served and of the shadow",
            "reqps",
            [Query(rate("medreward_shadow_agreement_total", "outcome"), "{{outcome}}")],
        ),
        Panel(
            "Shadow: left out",
            "reqps",
            [Query(rate("medreward_shadow_dropped_total", "reason"), "{{reason}}")],
        ),
    ],
}

RELEASE: Final = {
    "What serves": [
        Panel(
            "Models and versions",
            "short",
            [
                Query(
                    f"count by (model, model_version, version, runtime, fingerprint) (medreward_build_info{{{HERE}}})",
                    "",
                )
            ],
            "table",
        ),
        Panel(
            "Servers by model",
            "short",
            [Query(f"count by (fingerprint) (medreward_build_info{{{HERE}}})", "{{fingerprint}}")],
        ),
        Panel("Ready", "short", [Query(gauge("medreward_ready", how="max"), "{{instance}}")]),
        Panel(
            "Uptime",
            "s",
            [
                Query(
                    f'time() - max by (instance) (medreward_process_start_time_seconds{{{HERE},role="front"}})',
                    "{{instance}}",
                )
            ],
        ),
        Panel(
            "Workers replaced, in an hour",
            "short",
            [
                Query(
                    in_an_hour("medreward_worker_restarts_total", "instance, reason"),
                    "{{instance}} {{reason}}",
                )
            ],
        ),
        Panel(
            "Swaps of the model, in an hour",
            "short",
            [
                Query(
                    in_an_hour("medreward_model_swaps_total", "instance, outcome"),
                    "{{instance}} {{outcome}}",
                )
            ],
            about="Refused: the old model serves on; GET /admin/model says why.",
        ),
        Panel(
            "Asleep",
            "short",
            [Query(gauge("medreward_asleep", how="max"), "{{instance}}")],
            about="The level of the sleep; 0 is awake.",
        ),
        Panel(
            "Spans and events that were lost, in an hour",
            "short",
            [
                Query(
                    in_an_hour("medreward_trace_records_total", "instance, kind, outcome", ',outcome!="sent"'),
                    "{{instance}} {{kind}} {{outcome}}",
                )
            ],
            about="Nothing is sent unless traces are turned on.",
        ),
        Panel(
            "Time until the certificate expires",
            "s",
            [Query(gauge("medreward_certificate_expiry_seconds", how="min"), "{{instance}}")],
            about="+Inf without TLS.",
        ),
    ],
    "One model beside another": [
        Panel(
            "Requests",
            "reqps",
            [Query(by_model("medreward_requests_total"), "{{fingerprint}}")],
        ),
        Panel(
            "Share of responses without a score",
            "percentunit",
            [
                Query(
                    "1 - "
                    + ratio(
                        by_model("medreward_items_total", ',outcome="ok"'),
                        by_model("medreward_items_total"),
                    ),
                    "{{fingerprint}}",
                )
            ],
        ),
        Panel(
            "Duration, p99",
            "s",
            [
                Query(
                    "histogram_quantile(0.99, "
                    + by_model("medreward_request_duration_seconds_bucket", NO_STREAMS, "le, fingerprint")
                    + ")",
                    "{{fingerprint}}",
                )
            ],
        ),
        Panel(
            "Mean overall score",
            "short",
            [
                Query(
                    ratio(*(by_model(f"medreward_score_{part}", ',dimension="overall"') for part in ("sum", "count"))),
                    "{{fingerprint}}",
                )
            ],
        ),
    ],
}

NOTES: Final = "\n".join(
    [
        "**The gate.** Its verdicts are files (`gate.json`, and `evidence/` in the model's folder), not metrics: "
        "`medreward serve --require-evidence` serves a promoted model alone.",
        "",
        "**Not shown:**",
        "",
        *(f"- `{name}`: {why}" for name, why in NOT_SHOWN.items()),
    ]
)


def dashboard(name: str, rows: dict[str, list[Panel]], notes: str = "") -> dict[str, Any]:
    """Returns the dashboard as Grafana reads it; its uid stays the same from version to version."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, members in rows.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        y += 1
        for place, panel in enumerate(members):
            at = {"x": place % 3 * 8, "y": y + place // 3 * 8, "w": 8, "h": 8}
            panels.append(drawn(panel) | {"id": len(panels) + 1, "gridPos": at})
        y += (len(members) + 2) // 3 * 8
    if notes:
        panels.append(
            {
                "type": "text",
                "title": "Notes",
                "id": len(panels) + 1,
                "options": {"mode": "markdown", "content": notes},
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 8},
            }
        )
    return {
        "uid": f"medreward-{name}",
        "title": f"MedReward {name}",
        "tags": ["medreward"],
        "editable": True,
        "schemaVersion": 39,
        "version": VERSION,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["medreward"],
                "title": "MedReward",
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "data source"},
                variable("namespace", "label_values(medreward_build_info{}, namespace)", everything=True),
                variable("job", "label_values(medreward_build_info{}, job)", everything=False),
                variable("instance", 'label_values(medreward_build_info{job="$job"}, instance)', everything=True),
            ]
        },
        "panels": panels,
    }


def variable(name: str, query: str, everything: bool) -> dict[str, Any]:
    made = {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
    }
    if everything:
        made |= {"includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return made


def drawn(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + place),
            "expr": query.expr,
            "legendFormat": query.legend,
            "datasource": SOURCE,
            **({"format": "table", "instant": True} if panel.kind == "table" else {}),
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for place, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
    }


def main(folder: Path) -> None:
    made = {
        "serving": dashboard("serving", SERVING),
        "scores": dashboard("scores", SCORES),
        "release": dashboard("release", RELEASE, NOTES),
    }
    for name, content in made.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
