"""The transport over HTTP."""

import asyncio
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import httpx
import msgspec

from medreward.clients.errors import Refused, Unreachable
from medreward.clients.score import Contribution, Policy, Reason, Reply, Score, Screened, ScreenRequest, Step
from medreward.clients.tracing import trace_headers
from medreward.clients.transport import Tls, by_item, decided, garbled
from medreward.errors import Code
from medreward.types import (
    Evidence,
    ImageSource,
    InlineImage,
    ModelRef,
    Options,
    Runtime,
    ScoreRequest,
    StoredImage,
    UrlImage,
    Verdict,
)

RETRYABLE_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
SLACK_S: Final = 5.0  # the server ends a call at its deadline; the socket waits a little longer
CONNECT_S: Final = 10.0


class Error(msgspec.Struct):
    code: str
    message: str
    field: str = ""


class Part(msgspec.Struct):
    start: int
    end: int
    logits: dict[str, float | None] | None
    reward: float | None
    error: Error | None = None

    def contribution(self) -> Contribution:
        """Returns it as a caller gets it."""
        code, message = (self.error.code, self.error.message) if self.error else (None, None)
        return Contribution(self.start, self.end, self.logits, self.reward, code, message)


class Cut(msgspec.Struct):
    end: int
    logits: dict[str, float | None] | None
    reward: float | None
    error: Error | None = None

    def step(self) -> Step:
        """Returns it as a caller gets it."""
        code, message = (self.error.code, self.error.message) if self.error else (None, None)
        return Step(self.end, self.logits, self.reward, code, message)


class Aside(msgspec.Struct):
    scores: dict[str, float | None] | None
    logits: dict[str, float | None] | None
    uncertainty: dict[str, float | None] | None
    reward: float | None
    flags: tuple[str, ...]
    error: Error | None = None

    def score(self) -> Score:
        """Returns it as a caller gets it."""
        if self.error:
            error = self.error
            return Score(flags=self.flags, error=error.code, message=error.message, field=error.field)
        return Score(self.reward, self.scores, self.logits, self.uncertainty, self.flags)


class Result(Aside, kw_only=True):
    item: int
    response: int
    cached: bool = False
    explain: list[Part] | None = None
    steps: list[Cut] | None = None
    without_thinking: Aside | None = None
    expert: str = ""
    viewpoints: dict[str, float] | None = None
    viewpoint_spread: float | None = None

    def score(self) -> Score:
        return replace(
            super().score(),
            explain=None if self.explain is None else tuple(part.contribution() for part in self.explain),
            steps=None if self.steps is None else tuple(cut.step() for cut in self.steps),
            without_thinking=self.without_thinking.score() if self.without_thinking else None,
            expert=self.expert,
            viewpoints=self.viewpoints,
            viewpoint_spread=self.viewpoint_spread,
            cached=self.cached,
        )


class Judged(Result, kw_only=True):
    verdict: Verdict
    reasons: tuple[Reason, ...]
    margin: float | None

    def screened(self, policy: Policy, decision_id: str) -> Screened:
        """Returns it as a caller gets it."""
        return decided(self.score(), self.verdict, self.reasons, self.margin, policy, decision_id)


class Model(msgspec.Struct):
    name: str
    version: str
    fingerprint: str
    runtime: str
    evidence: Evidence

    def ref(self) -> ModelRef:
        return ModelRef(self.name, self.version, self.fingerprint, Runtime.of(self.runtime), self.evidence)


class Weighting(msgspec.Struct):
    weights: dict[str, float]


class Served(msgspec.Struct):
    default_weights: dict[str, float]
    viewpoints: dict[str, Weighting] = {}


class Body(msgspec.Struct):
    id: str
    model: Model
    results: list[Result]
    timings_ms: dict[str, float] = msgspec.field(default_factory=dict)


class Decided(msgspec.Struct):
    id: str
    model: Model
    results: list[Judged]
    policy: Policy
    decision_id: str
    timings_ms: dict[str, float] = msgspec.field(default_factory=dict)


class Stored(msgspec.Struct):
    sha256: str


class Problem(msgspec.Struct):
    code: str
    detail: str
    field: str | None = None


class RestTransport:
    """Sends each call once. Raises ValueError for a URL that is none."""

    def __init__(
        self, url: str, connections: int, timeout_s: float, headers: Mapping[str, str], tls: Tls | None = None
    ) -> None:
        self._longest_s = timeout_s + SLACK_S
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"the URL {url!r} is wrong: {error}") from None
        without_password = f"{parsed.scheme}://{parsed.netloc.decode()}{parsed.path}"
        self._address = without_password if parsed.userinfo else url
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=dict(headers),
            timeout=httpx.Timeout(self._longest_s, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            verify=tls.context() if tls else True,
        )

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        response = await self._post("/score", request, affinity)
        try:
            reply = msgspec.json.decode(response.content, type=Body)
            if reply.id != request.id:
                raise garbled()
            results = ((result.item, result.response, result.score()) for result in reply.results)
            return Reply(reply.model.ref(), by_item(request, results), reply.id, reply.timings_ms)
        except (ValueError, Refused):
            raise await self._hung_up(response) from None

    async def screen(self, request: ScreenRequest, affinity: str | None) -> Reply:
        response = await self._post("/v1/screen", request, affinity)
        try:
            reply = msgspec.json.decode(response.content, type=Decided)
            if reply.id != request.id:
                raise garbled()
            results = (
                (result.item, result.response, result.screened(reply.policy, reply.decision_id))
                for result in reply.results
            )
            return Reply(reply.model.ref(), by_item(request, results), reply.id, reply.timings_ms)
        except (ValueError, Refused):
            raise await self._hung_up(response) from None

    async def _post(self, path: str, request: ScoreRequest, affinity: str | None) -> httpx.Response:
        headers = {"Content-Type": "application/json", "X-Request-Id": request.id, "X-Lane": request.lane}
        if request.deadline_s:
            headers["X-Deadline-Ms"] = str(max(1, round(request.deadline_s * 1000)))
        if request.fingerprint:
            headers["X-Model-Fingerprint"] = request.fingerprint
        if affinity:
            headers["X-Affinity-Key"] = affinity
        return await self._send("POST", path, headers, _body(request))

    async def put_image(self, data: bytes, digest: str) -> None:
        headers = {"Content-Type": "application/octet-stream", "X-Affinity-Key": digest}
        response = await self._send("PUT", "/v1/images", headers, data)
        if (await self._decoded(response, Stored)).sha256 != digest:
            raise await self._hung_up(response)

    async def model(self) -> ModelRef:
        model: Model = await self._decoded(await self._send("GET", "/v1/model", {}), Model)
        return model.ref()

    async def weights(self, viewpoint: str | None) -> Mapping[str, float]:
        served: Served = await self._decoded(await self._send("GET", "/v1/model", {}), Served)
        if viewpoint is None:
            return served.default_weights
        return served.viewpoints[viewpoint].weights if viewpoint in served.viewpoints else {}

    async def limits(self) -> Mapping[str, float]:
        limits: dict[str, float] = await self._decoded(await self._send("GET", "/v1/limits", {}), dict[str, float])
        return limits

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(
        self, method: str, path: str, headers: dict[str, str], content: bytes | None = None
    ) -> httpx.Response:
        id_ = headers.setdefault("X-Request-Id", uuid.uuid4().hex)
        headers |= trace_headers()
        try:
            async with asyncio.timeout(self._longest_s):
                response = await self._client.request(method, path, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            reason: BaseException = error
            while cause := reason.__cause__ or reason.__context__:  # httpx's own words do not say what failed
                reason = cause
            raise Unreachable(self._address, str(reason) or type(error).__name__) from None
        except (httpx.RequestError, TimeoutError) as error:
            raise Refused(
                "unreachable", f"a call to {self._address} failed: {type(error).__name__}", retryable=True
            ) from None
        if response.headers.get("x-request-id", id_) != id_:
            raise await self._hung_up(response)
        if not response.is_success:
            raise self._refused(response)
        return response

    async def _decoded(self, response: httpx.Response, shape: type[Any]) -> Any:
        try:
            return msgspec.json.decode(response.content, type=shape)
        except ValueError:
            raise await self._hung_up(response) from None

    def _refused(self, response: httpx.Response) -> Refused:
        status = response.status_code
        after = response.headers.get("retry-after", "")
        retry_after = float(after) if after.isdecimal() else None
        try:
            problem = msgspec.json.decode(response.content, type=Problem)
        except ValueError:  # somebody else's words: a proxy's, or those of a server at a wrong address
            if status == 404:
                return Unreachable(self._address, "it answers 404, and does not answer as MedReward does", "http_404")
            code = Code.BODY_TOO_LARGE if status == 413 else f"http_{status}"
            detail = f"{self._address} answers {status}, and does not answer as MedReward does"
            return Refused(code, detail, status in RETRYABLE_STATUS, retry_after)
        retryable = status in RETRYABLE_STATUS
        return Refused(problem.code, problem.detail, retryable, retry_after, problem.field or "")

    async def _hung_up(self, response: httpx.Response) -> Refused:
        """Closes a connection whose answer is not that to what was asked, so that nothing more is read from it."""
        await response.extensions["network_stream"].aclose()
        return garbled()


def _body(request: ScoreRequest) -> bytes:
    items = []
    for item in request.items:
        fields: dict[str, object] = {"question": item.question, "responses": item.responses}
        if len(item.images) == 1:
            fields["image"] = _image(item.images[0])
        elif item.images:
            fields["images"] = [_image(image) for image in item.images]
        if item.history:
            fields["history"] = [turn.as_json() for turn in item.history]
        if isinstance(request, ScreenRequest) and request.department:
            fields["department"] = request.department
        elif item.department:
            fields["department"] = item.department
        items.append(fields)
    body: dict[str, object] = {"items": items}
    if request.weights:
        body["weights"] = request.weights
    if request.viewpoint is not None:
        body["viewpoint"] = request.viewpoint
    if isinstance(request, ScreenRequest) and request.policy is not None:
        body["policy"] = request.policy
    if request.options != Options():
        body["options"] = request.options.given()
    return msgspec.json.encode(body)


def _image(image: ImageSource) -> dict[str, str]:
    match image:
        case StoredImage(sha256):
            return {"sha256": sha256}
        case InlineImage(data):
            return {"base64": b64encode(data).decode()}
        case UrlImage(url):
            return {"url": url}
    raise TypeError("the client sends images by hash, as bytes or by URL")
