"""The web page at `GET /`, and the two answers that it needs beside those of the API: what the model sees of an image,
and what goes through the server now."""

import asyncio
import time
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

from medreward import __version__
from medreward.api.fields import read_lane
from medreward.api.openapi import PROBLEMS
from medreward.api.page.files import INDEX, SAFE, file_reply
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.replies import json_reply
from medreward.api.rest.requests import read_body
from medreward.api.state_shapes import NowReply
from medreward.encoding.image import png
from medreward.metrics import Metrics

#: What the operator's view draws. A metric that this server does not have is left out of the answer.
SHOWN: Final = frozenset(
    f"medreward_{name}"
    for name in (
        "requests",
        "request_duration_seconds",
        "refused",
        "requests_in_flight",
        "queue_cost",
        "queue_cost_limit",
        "items",
        "flags",
        "cache_requests",
        "cache_hits",
        "worker_restarts",
        "verdicts",
        "drift_statistic",
        "drift_alarm",
        "shadow_agreement",
    )
)
UNSHOWN: Final = ("_created", "_sum", "_count")
IMAGE: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter()


@router.get("/", tags=["operators"], response_class=HTMLResponse)
async def page(request: Request) -> Response:
    """The web page: try the model, compare answers, see why; and what goes through the server now."""
    return file_reply(INDEX, request)


@router.post(
    "/page/preview",
    tags=["images"],
    responses={200: {"content": {"image/png": {}}}, **PROBLEMS},
    response_class=Response,
    openapi_extra={"requestBody": {"required": True, "content": IMAGE}},
)
async def preview(request: Request) -> Response:
    """What the model sees of an image file, as a PNG of the model's size, without the black that fills it up."""
    engine, entry = engine_of(request), entry_of(request.scope)
    entry.lane = read_lane(request.headers.get("x-lane"))
    entry.caller.check_lane(entry.lane)
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        async with cancelled_if_left(request):
            pixels = await engine.seen(data, entry.caller.tenant, entry.lane)
    content = await asyncio.to_thread(png, pixels)
    return Response(content, headers={"Cache-Control": "no-store", **SAFE}, media_type="image/png")


@router.get("/page/now", tags=["operators"], responses={200: {"model": NowReply}, **PROBLEMS})
async def now(request: Request) -> Response:
    """What goes through the server now: some of its metrics, as `GET /metrics` of the admin port has them."""
    engine = engine_of(request)
    reason = engine.not_ready()
    about = {"at": time.time(), "version": __version__, "ready": reason is None, "reason": reason}
    # In a thread: of many routes it takes milliseconds, which answers in the event loop need not wait for.
    samples = await asyncio.to_thread(_samples, engine.metrics)
    return json_reply({**about, "metrics": samples}, headers={"Cache-Control": "no-store"})


@router.get("/page/{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    return file_reply(name, request)


def _samples(metrics: Metrics) -> dict[str, list[dict[str, Any]]]:
    """Returns the shown series that are not 0, by the metric's name; of a histogram, all buckets or none."""
    # Not through the registry, which would read /proc for every process too.
    families = [
        family
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase) and any(about.name in SHOWN for about in metric.describe())
        for family in metric.collect()
    ]
    samples = [one for family in families for one in family.samples if not one.name.endswith(UNSHOWN)]
    used = {_series(sample) for sample in samples if sample.value}
    shown: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        if _series(sample) in used:
            shown.setdefault(sample.name, []).append({"labels": sample.labels, "value": sample.value})
    return shown


def _series(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset((name, value) for name, value in sample.labels.items() if name != "le")
