"""The transport over gRPC."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc

from medreward.clients.errors import Refused, Unreachable
from medreward.clients.score import Contribution, Policy, Reason, Reply, Score, Screened, ScreenRequest, Step
from medreward.clients.tracing import trace_headers
from medreward.clients.transport import Tls, by_item, decided, garbled
from medreward.errors import RETRYABLE, Code
from medreward.proto import reward_pb2 as pb
from medreward.proto import reward_pb2_grpc
from medreward.types import (
    DIMENSIONS,
    Evidence,
    ImageSource,
    InlineImage,
    ModelRef,
    Options,
    Runtime,
    ScoreRequest,
    StoredImage,
    Turn,
    UrlImage,
    Verdict,
    Viewpoints,
)

#: Of calls that ended before the server's own code was reached, or after it had answered.
RETRYABLE_STATUS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
SLACK_S: Final = 5.0


class RpcTransport:
    """Sends each call once over one channel; gRPC's own retries are off."""

    def __init__(self, target: str, timeout_s: float, headers: Mapping[str, str], tls: Tls | None = None) -> None:
        self._longest_s = timeout_s + SLACK_S
        self._address = f"{'grpcs' if tls else 'grpc'}://{target}"
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),  # the client has its own
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if tls:
            ca, key, cert = (Path(file).read_bytes() if file else None for file in (tls.ca, tls.key, tls.cert))
            credentials = grpc.ssl_channel_credentials(ca, key, cert)
            self._channel = grpc.aio.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.aio.insecure_channel(target, options)
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        reply = await self._ask(self._stub.Score, pb.ScoreRequest(**_asked(request)), request, affinity)
        lists_viewpoints = request.options.viewpoints is Viewpoints.ALL
        results = ((result.item, result.response, _score(result, lists_viewpoints)) for result in reply.results)
        return Reply(_ref(reply.model), by_item(request, results), reply.request_id, _timings(reply.timings))

    async def screen(self, request: ScreenRequest, affinity: str | None) -> Reply:
        departments = [request.department] * len(request.items) if request.department else []
        message = pb.ScreenRequest(**_asked(request), policy=request.policy or "", departments=departments)
        reply = await self._ask(self._stub.Screen, message, request, affinity)
        if len(reply.decisions) != len(reply.results):
            raise garbled()
        policy = Policy(reply.policy.name, reply.policy.version, reply.policy.digest)
        results = (
            (result.item, result.response, _screened(result, decision, policy, reply.decision_id))
            for result, decision in zip(reply.results, reply.decisions, strict=True)
        )
        return Reply(_ref(reply.model), by_item(request, results), reply.request_id, _timings(reply.timings))

    async def put_image(self, data: bytes, digest: str) -> None:
        metadata = [*self._metadata, *_affinity(digest)]
        reply = await self._call(self._stub.PutImage, pb.PutImageRequest(data=data), metadata)
        if reply.sha256 != digest:
            raise garbled()

    async def model(self) -> ModelRef:
        return _ref((await self._call(self._stub.GetModel, pb.GetModelRequest(), self._metadata)).ref)

    async def weights(self, viewpoint: str | None) -> Mapping[str, float]:
        served = await self._call(self._stub.GetModel, pb.GetModelRequest(), self._metadata)
        if viewpoint is None:
            return dict(served.default_weights)
        return dict(served.viewpoints[viewpoint].weights) if viewpoint in served.viewpoints else {}

    async def limits(self) -> Mapping[str, float]:
        return dict((await self._call(self._stub.GetModel, pb.GetModelRequest(), self._metadata)).limits)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, method: Any, message: object, request: ScoreRequest, affinity: str | None) -> Any:
        metadata = [*self._metadata]
        if request.deadline_s:
            metadata.append(("x-deadline-ms", str(max(1, round(request.deadline_s * 1000)))))
        if affinity:
            metadata += _affinity(affinity)
        reply = await self._call(method, message, metadata)
        if reply.request_id != request.id:
            raise garbled()
        return reply

    async def _call(self, method: Any, message: object, metadata: list[tuple[str, str]]) -> Any:
        try:
            metadata = [*metadata, *trace_headers().items()]
            return await method(message, metadata=metadata, timeout=self._longest_s)
        except grpc.aio.AioRpcError as error:
            raise self._refused(error) from None

    def _refused(self, error: grpc.aio.AioRpcError) -> Refused:
        trailing = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
        pushback = trailing.get("grpc-retry-pushback-ms", "")
        detail = error.details() or ""
        if code := trailing.get("x-error-code"):
            after = float(pushback) / 1000 if pushback.isdecimal() else None
            field = trailing.get("x-error-field", "")
            return Refused(code, detail, code in RETRYABLE or code == Code.INTERNAL, after, field)
        status: grpc.StatusCode = error.code()
        never_connected = self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if status is grpc.StatusCode.UNAVAILABLE and never_connected:
            return Unreachable(self._address, detail)
        if status is grpc.StatusCode.UNIMPLEMENTED:
            return Unreachable(self._address, f"what answers has no such service: {detail}")
        if status in RETRYABLE_STATUS:
            return Refused("unreachable", f"a call to {self._address} failed: {status.name}", retryable=True)
        if status is grpc.StatusCode.RESOURCE_EXHAUSTED:  # of the message itself, before the server read it
            return Refused(Code.BODY_TOO_LARGE, detail, retryable=False)
        return Refused(f"grpc_{status.name.lower()}", f"{self._address}: {detail}", retryable=False)


def _asked(request: ScoreRequest) -> dict[str, Any]:
    """Returns the fields that a message to score and one to screen have in common."""
    items = [
        pb.Item(
            images=[_image(image) for image in item.images],
            question=item.question,
            responses=item.responses,
            history=[_turn(turn) for turn in item.history],
            department=item.department,
        )
        for item in request.items
    ]
    return {
        "request_id": request.id,
        "items": items,
        "weights": request.weights,
        "viewpoint": request.viewpoint or "",
        "options": _options(request.options),
        "lane": request.lane,
        "expect_fingerprint": request.fingerprint or "",
    }


def _options(options: Options) -> pb.Options:
    given = options.given()
    if isinstance(options.steps, tuple):
        given["step_ends"] = given.pop("steps")
    return pb.Options(**given)


def _turn(turn: Turn) -> pb.Turn:
    if isinstance(turn.content, str):
        return pb.Turn(role=turn.role, content=turn.content)
    parts = [pb.Part(text=part) if isinstance(part, str) else pb.Part(image=part) for part in turn.content]
    return pb.Turn(role=turn.role, parts=parts)


def _image(image: ImageSource) -> pb.Image:
    match image:
        case StoredImage(sha256):
            return pb.Image(sha256=sha256)
        case InlineImage(data):
            return pb.Image(data=data)
        case UrlImage(url):
            return pb.Image(url=url)
    raise TypeError("the client sends images by hash, as bytes or by URL")


def _score(result: pb.Result, lists_viewpoints: bool = False) -> Score:
    return replace(
        _numbers(result),
        explain=tuple(map(_contribution, result.explain.sentences)) if result.HasField("explain") else None,
        steps=tuple(map(_step, result.steps.steps)) if result.HasField("steps") else None,
        without_thinking=_numbers(result.without_thinking) if result.HasField("without_thinking") else None,
        expert=result.expert,
        viewpoints=dict(result.viewpoints) if lists_viewpoints else None,
        viewpoint_spread=result.viewpoint_spread if result.HasField("viewpoint_spread") else None,
        cached=result.cached,
    )


def _numbers(result: pb.Result | pb.Aside) -> Score:
    if result.HasField("error"):
        error = result.error
        return Score(flags=tuple(result.flags), error=error.code, message=error.message, field=error.field)
    return Score(
        result.reward if result.HasField("reward") else None,
        _six(result.scores),
        _six(result.logits),
        _six(result.uncertainty) if result.HasField("uncertainty") else None,
        tuple(result.flags),
    )


def _step(cut: pb.Step) -> Step:
    if cut.HasField("error"):
        return Step(cut.end, error=cut.error.code, message=cut.error.message)
    return Step(cut.end, _six(cut.logits), cut.reward if cut.HasField("reward") else None)


def _contribution(part: pb.Contribution) -> Contribution:
    if part.HasField("error"):
        return Contribution(part.start, part.end, error=part.error.code, message=part.error.message)
    reward = part.reward if part.HasField("reward") else None
    return Contribution(part.start, part.end, _six(part.logits), reward)


def _screened(result: pb.Result, decision: pb.Decision, policy: Policy, decision_id: str) -> Screened:
    if decision.verdict not in set(Verdict):
        raise garbled()
    reasons = tuple(
        Reason(
            each.rule,
            each.dimension if each.HasField("dimension") else None,
            each.value if each.HasField("value") else None,
            each.threshold if each.HasField("threshold") else None,
        )
        for each in decision.reasons
    )
    margin = decision.margin if decision.HasField("margin") else None
    return decided(_score(result), Verdict(decision.verdict), reasons, margin, policy, decision_id)


def _timings(timings: pb.Timings) -> dict[str, float]:
    return {phase: getattr(timings, f"{phase}_ms") for phase in ("decode", "queue", "inference", "total")}


def _six(values: pb.Dimensions) -> dict[str, float | None]:
    return {name: getattr(values, name) if values.HasField(name) else None for name in DIMENSIONS}


def _ref(model: pb.ModelRef) -> ModelRef:
    return ModelRef(model.name, model.version, model.fingerprint, Runtime.of(model.runtime), Evidence(model.evidence))


def _affinity(key: str) -> list[tuple[str, str]]:
    """Returns the key as balancers read it, and as Ray Serve does, which knows no other name over gRPC."""
    return [("x-affinity-key", key), ("session_id", key)]
