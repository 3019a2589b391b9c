"""The way over HTTP."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from medreward.clients.errors import Refused
from medreward.clients.score import Reply, Score
from medreward.types import Evidence, ImageSource, Item, ModelRef, Options, ScoreRequest, StoredImage, UrlImage

RETRYABLE_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
SLACK_S: Final = 5.0  # the server ends a call at its deadline; the socket waits a little longer


class Error(msgspec.Struct):
    code: str
    message: str


class Result(msgspec.Struct):
    item: int
    response: int
    scores: dict[str, float] | None
    logits: dict[str, float] | None
    uncertainty: dict[str, float] | None
    reward: float | None
    flags: tuple[str, ...]
    error: Error | None = None


class Model(msgspec.Struct):
    name: str
    version: str
    fingerprint: str
    runtime: str
    evidence: Evidence

    def ref(self) -> ModelRef:
        return ModelRef(self.name, self.version, self.fingerprint, self.runtime, self.evidence)


class Body(msgspec.Struct):
    id: str
    model: Model
    results: list[Result]


class Stored(msgspec.Struct):
    sha256: str


class Problem(msgspec.Struct):
    code: str
    detail: str


class RestTransport:
    def __init__(
        self, url: str, connections: int, timeout_s: float, headers: Mapping[str, str], tls: Any = True
    ) -> None:
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=dict(headers),
            timeout=timeout_s + SLACK_S,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            verify=tls,
        )

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": request.id,
            "X-Lane": request.lane,
            "X-Deadline-Ms": str(round((request.deadline_s or self._timeout_s) * 1000)),
        }
        if request.fingerprint:
            headers["X-Model-Fingerprint"] = request.fingerprint
        if affinity:
            headers["X-Affinity-Key"] = affinity
        response = await self._send("POST", "/score", _body(request), headers)
        reply = await self._decoded(response, Body)
        if reply.id != request.id:
            raise await self._garbled(response)
        scores = [[Score(error="internal", message="no result")] * len(item.responses) for item in request.items]
        try:
            for result in reply.results:
                scores[result.item][result.response] = _score(result)
        except IndexError:
            raise await self._garbled(response) from None
        if len(reply.results) != sum(map(len, scores)):
            raise await self._garbled(response)
        return Reply(reply.model.ref(), scores)

    async def put_image(self, data: bytes, digest: str) -> None:
        headers = {"Content-Type": "application/octet-stream", "X-Affinity-Key": digest}
        response = await self._send("PUT", "/v1/images", data, headers)
        if (await self._decoded(response, Stored)).sha256 != digest:
            raise await self._garbled(response)

    async def model(self) -> ModelRef:
        response = await self._send("GET", "/v1/model", None, {})
        model: Model = await self._decoded(response, Model)
        return model.ref()

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> httpx.Response:
        try:
            async with asyncio.timeout(self._timeout_s + SLACK_S):
                response = await self._client.request(method, path, content=content, headers=dict(headers))
        except (httpx.TransportError, TimeoutError) as error:
            raise Refused("unreachable", type(error).__name__, retryable=True) from None
        if response.is_success:
            return response
        raise _refused(response)

    async def _decoded(self, response: httpx.Response, shape: type[Any]) -> Any:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except (msgspec.MsgspecError, ValueError):
            raise await self._garbled(response) from None

    async def _garbled(self, response: httpx.Response) -> Refused:
        """Not the answer to what was asked: nothing more may be read from that connection."""
        await response.extensions["network_stream"].aclose()
        return Refused("garbled", "the reply was not the answer to this call", retryable=True)


def _refused(response: httpx.Response) -> Refused:
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
        code, detail = problem.code, problem.detail
    except (msgspec.MsgspecError, ValueError):
        code, detail = f"http_{response.status_code}", "not an answer of MedReward"
    after = response.headers.get("retry-after", "")
    return Refused(code, detail, response.status_code in RETRYABLE_STATUS, float(after) if after.isdecimal() else None)


def _score(result: Result) -> Score:
    if result.error:
        return Score(flags=result.flags, error=result.error.code, message=result.error.message)
    return Score(result.reward, result.scores, result.logits, result.uncertainty, result.flags)


def _body(request: ScoreRequest) -> bytes:
    body: dict[str, object] = {"items": [_item(item) for item in request.items]}
    if request.weights:
        body["weights"] = request.weights
    if request.options != Options():
        body["options"] = {"too_long": request.options.too_long, "thinking": request.options.thinking}
    return msgspec.json.encode(body)


def _item(item: Item) -> dict[str, object]:
    written: dict[str, object] = {"question": item.question, "responses": item.responses}
    if item.images:
        written["images" if len(item.images) > 1 else "image"] = (
            [_image(image) for image in item.images] if len(item.images) > 1 else _image(item.images[0])
        )
    if item.history:
        written["history"] = [{"role": turn.role, "content": turn.content} for turn in item.history]
    return written


def _image(image: ImageSource) -> dict[str, str]:
    match image:
        case StoredImage(sha256):
            return {"sha256": sha256}
        case UrlImage(url):
            return {"url": url}
    raise TypeError("the client sends images by hash or URL")
