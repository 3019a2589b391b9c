"""The Open Inference Protocol over HTTP, in JSON and with the binary extension."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field

from medreward.api.compat import oip
from medreward.api.compat.asking import (
    PARAMETERS,
    Foreign,
    described,
    encoded,
    model_headers,
    read_call,
    read_foreign,
    reply,
    score,
)
from medreward.api.openapi import PROBLEMS
from medreward.api.rest.leaving import cancelled_if_left
from medreward.api.rest.middleware import engine_of, entry_of
from medreward.api.rest.requests import read_body
from medreward.api.shape import Shape
from medreward.engine.engine import Engine
from medreward.errors import Code, RequestError

router = APIRouter(tags=["trainers"])

HEADER_LENGTH: Final = "Inference-Header-Content-Length"

Parameters = Annotated[dict[str, Any], Field(default_factory=dict)]


class InferInput(Foreign):
    """In JSON, an element of `image` is base64, and one of another input a text. An input whose parameters have
    `binary_data_size` stands behind the JSON instead."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters
    data: list[Any] | None = None


class InferOutput(Foreign):
    name: str
    parameters: Parameters


class InferRequest(Foreign):
    """The parameters may be those of the URL."""

    id: str | None = None
    parameters: Parameters
    inputs: list[InferInput]
    outputs: list[InferOutput] | None = None


class InferredOutput(Shape):
    name: str
    datatype: str
    shape: list[int]
    data: list[float | None]


class InferReply(Shape):
    id: str
    model_name: str
    model_version: str
    outputs: list[InferredOutput]


class Ready(Shape):
    name: str
    ready: bool


def _tensors(body: InferRequest, binary: bytes, engine: Engine) -> list[oip.Tensor]:
    """Returns the inputs; refuses those whose bytes do not stand behind the JSON, and bytes that belong to none."""
    tensors, at = [], 0
    for i, given in enumerate(body.inputs):
        pointer, size = f"/inputs/{i}", given.parameters.get("binary_data_size")
        if size is None:
            elements = _flat(given.data or [], pointer)
        elif isinstance(size, int) and 0 <= size <= len(binary) - at:
            elements = oip.elements_of(binary[at : at + size], pointer, engine.settings)
            at += size
        else:
            raise RequestError(Code.MALFORMED, "the body has fewer bytes than binary_data_size says", pointer)
        is_base64 = size is None and given.parameters.get("content_type") == "base64"
        tensors.append(oip.tensor(given.name, given.datatype, given.shape, elements, pointer, is_base64))
    if at != len(binary):
        raise RequestError(Code.MALFORMED, "the body has bytes that belong to no input")
    return tensors


def _flat(data: list[Any], pointer: str) -> list[oip.Element]:
    """Returns the texts of lists in lists, which JSON may have where a shape has several sides."""
    flat: list[oip.Element] = []
    for element in data:
        if isinstance(element, list):
            flat += _flat(element, pointer)
        elif isinstance(element, str):
            flat.append(element)
        else:
            raise RequestError(Code.INVALID_FIELD, "the elements of an input must be texts", f"{pointer}/data")
    return flat


@router.get("/v2")
async def server() -> dict[str, Any]:
    """What this server is, in the Open Inference Protocol."""
    return oip.SERVER


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Whether the process runs."""
    return {"live": True}


@router.get("/v2/health/ready", responses=PROBLEMS)
async def ready(request: Request) -> dict[str, bool]:
    """Whether requests are taken; 503 says why not."""
    if reason := engine_of(request).not_ready():
        raise RequestError(Code.NOT_READY, reason, retry_after=1)
    return {"ready": True}


@router.get("/v2/models/{name}/versions/{version}", responses=PROBLEMS)
@router.get("/v2/models/{name}", responses=PROBLEMS)
async def model(request: Request, name: str, version: str = "") -> dict[str, Any]:
    """The inputs and outputs of the model that is served."""
    oip.check_model(engine_of(request), name, version)
    return oip.model_about(engine_of(request))


@router.get("/v2/models/{name}/versions/{version}/ready", responses={200: {"model": Ready}, **PROBLEMS})
@router.get("/v2/models/{name}/ready", responses={200: {"model": Ready}, **PROBLEMS})
async def model_ready(request: Request, name: str, version: str = "") -> dict[str, Any]:
    """Whether this model takes requests; 503 says why not."""
    oip.check_model(engine_of(request), name, version)
    await ready(request)
    return {"name": name, "ready": True}


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    responses={200: {"model": InferReply}, **PROBLEMS},
    openapi_extra=described(InferRequest),
)
@router.post(
    "/v2/models/{name}/infer",
    responses={200: {"model": InferReply}, **PROBLEMS},
    openapi_extra=described(InferRequest),
)
async def infer(request: Request, name: str, version: str = "") -> Response:
    """Logits, scores and reward of each row of the inputs."""
    engine, entry, headers = engine_of(request), entry_of(request.scope), request.headers
    oip.check_model(engine, name, version)
    engine.refuse_early(entry.lane)
    with engine.bodies.reserve() as room:
        data = await read_body(request, engine.settings, room)
        length = headers.get(HEADER_LENGTH, str(len(data)))
        if not length.isascii() or not length.isdigit() or int(length) > len(data):
            raise RequestError(Code.MALFORMED, "the header must say how many bytes of the body are JSON", HEADER_LENGTH)
        body = read_foreign(InferRequest, data[: int(length)], engine.settings)
        parameters = {**request.query_params, **_texts(body.parameters)}
        call = read_call(request.scope["route"].path, entry, parameters, headers)
        samples = oip.samples(_tensors(body, data[int(length) :], engine))
        wanted = [output.name for output in body.outputs or []]
        oip.outputs((), wanted)  # a name that no output has is refused before any work
        entry.caller.charge(len(samples))
        async with cancelled_if_left(request):
            answers = await score(engine, call, samples)
    everything = body.parameters.get("binary_data_output") is True
    asked_for = body.outputs or [InferOutput(name=name, parameters={}) for name in oip.OUTPUTS]
    binary = {output.name for output in asked_for if output.parameters.get("binary_data", everything) is True}
    return _reply(request, body, oip.outputs(answers, wanted), binary)


def _texts(parameters: dict[str, Any]) -> dict[str, str]:
    """Returns those parameters of a request that the URL may have too, as the URL has them."""
    given = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return {name: "null" if value is None else str(value) for name, value in given.items()}


def _reply(request: Request, body: InferRequest, outputs: list[oip.Output], binary: set[str]) -> Response:
    ref = engine_of(request).models.named(entry_of(request.scope).fingerprint).ref
    written: list[dict[str, Any]] = []
    tail = b""
    for output in outputs:
        about = {"name": output.name, "datatype": "FP64", "shape": output.shape}
        if output.name in binary:
            raw = output.binary()
            tail += raw
            written.append({**about, "parameters": {"binary_data_size": len(raw)}})
        else:
            written.append({**about, "data": output.numbers})
    id_ = body.id or entry_of(request.scope).request_id
    answer = {"id": id_, "model_name": ref.name, "model_version": ref.version, "outputs": written}
    if not binary:
        return reply(request, answer)
    head = encoded(answer)
    headers = {HEADER_LENGTH: str(len(head)), **model_headers(request)}
    return Response(head + tail, 200, headers, media_type="application/octet-stream")
