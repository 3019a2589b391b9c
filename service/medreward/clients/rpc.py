"""The way over gRPC."""

from collections.abc import Mapping
from typing import Any, Final

import grpc

from medreward.api.proto import reward_pb2 as pb
from medreward.api.proto import reward_pb2_grpc
from medreward.clients.errors import Refused
from medreward.clients.score import Reply, Score
from medreward.errors import RETRYABLE as RETRYABLE_CODES
from medreward.types import DIMENSIONS, Evidence, Item, ModelRef, ScoreRequest, StoredImage, UrlImage

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
    def __init__(
        self, target: str, timeout_s: float, headers: Mapping[str, str], tls: grpc.ChannelCredentials | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),  # the client has its own
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._channel = (
            grpc.aio.secure_channel(target, tls, options) if tls else grpc.aio.insecure_channel(target, options)
        )
        self._stub = reward_pb2_grpc.RewardServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        deadline_s = request.deadline_s or self._timeout_s
        message = pb.ScoreRequest(
            request_id=request.id,
            items=[_item(item) for item in request.items],
            weights=request.weights,
            options=pb.Options(too_long=request.options.too_long, thinking=request.options.thinking),
            lane=request.lane,
            expect_fingerprint=request.fingerprint or "",
        )
        metadata = [*self._metadata, ("x-deadline-ms", str(round(deadline_s * 1000)))]
        if affinity:
            metadata.append(("x-affinity-key", affinity))
        reply = await self._call(self._stub.Score, message, metadata)
        scores = [[Score(error="internal", message="no result")] * len(item.responses) for item in request.items]
        if reply.request_id != request.id or len(reply.results) != sum(map(len, scores)):
            raise Refused("garbled", "the reply was not the answer to this call", retryable=True)
        for result in reply.results:
            scores[result.item][result.response] = _score(result)
        return Reply(_ref(reply.model), scores)

    async def put_image(self, data: bytes, digest: str) -> None:
        metadata = [*self._metadata, ("x-affinity-key", digest)]
        reply = await self._call(self._stub.PutImage, pb.PutImageRequest(data=data), metadata)
        if reply.sha256 != digest:
            raise Refused("garbled", "the reply was not the answer to this call", retryable=True)

    async def model(self) -> ModelRef:
        return _ref((await self._call(self._stub.GetModel, pb.GetModelRequest(), self._metadata)).ref)

    async def close(self) -> None:
        await self._channel.close()

    async def _call(self, method: Any, message: object, metadata: list[tuple[str, str]]) -> Any:
        try:
            return await method(message, metadata=metadata, timeout=self._timeout_s + SLACK_S)
        except grpc.aio.AioRpcError as error:
            trailing = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
            pushback = trailing.get("grpc-retry-pushback-ms", "")
            code = trailing.get("x-error-code")
            after = float(pushback) / 1000 if pushback.isdecimal() else None
            if code:
                raise Refused(code, error.details() or "", code in RETRYABLE_CODES, after) from None
            raise Refused("unreachable", error.code().name, error.code() in RETRYABLE_STATUS) from None


def credentials(tls: Any) -> grpc.ChannelCredentials:
    """`tls`: PEM bytes of the authority to trust; None for the usual ones."""
    return grpc.ssl_channel_credentials(root_certificates=tls)


def _item(item: Item) -> pb.Item:
    return pb.Item(
        images=[
            pb.Image(sha256=image.sha256) if isinstance(image, StoredImage) else pb.Image(url=image.url)
            for image in item.images
            if isinstance(image, StoredImage | UrlImage)
        ],
        question=item.question,
        responses=item.responses,
        history=[pb.Turn(role=turn.role, content=turn.content) for turn in item.history],
    )


def _score(result: pb.Result) -> Score:
    if result.HasField("error"):
        return Score(flags=tuple(result.flags), error=result.error.code, message=result.error.message)
    return Score(
        result.reward if result.HasField("reward") else None,
        _six(result.scores),
        _six(result.logits),
        _six(result.uncertainty) if result.HasField("uncertainty") else None,
        tuple(result.flags),
    )


def _six(values: pb.Dimensions) -> dict[str, float]:
    return {dimension: getattr(values, dimension) for dimension in DIMENSIONS}


def _ref(model: pb.ModelRef) -> ModelRef:
    return ModelRef(model.name, model.version, model.fingerprint, model.runtime, Evidence(model.evidence))
