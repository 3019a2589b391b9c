"""The gRPC door: translate, call the engine, translate back."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from medreward.api.access.keyring import ANYONE, Caller, Keyring
from medreward.api.access.keys import Scope
from medreward.api.access.tls import Tls
from medreward.api.fields import option, pointer_to, read_deadline, read_lane
from medreward.api.observing import UNMATCHED, Entry, observe, request_id
from medreward.api.rest.status import OUR_FAULT
from medreward.api.structure import check_message
from medreward.engine.engine import Engine
from medreward.engine.limits import limits_of
from medreward.errors import Code, MedRewardError, RequestError
from medreward.metrics import Metrics
from medreward.proto import reward_pb2 as pb
from medreward.settings import RequestIds
from medreward.types import (
    DIMENSIONS,
    Failed,
    ImageSource,
    InlineImage,
    Item,
    Lane,
    ModelRef,
    Options,
    Result,
    ScoreRequest,
    ScoreResponse,
    Six,
    StoredImage,
    Thinking,
    TooLong,
    Turn,
    UrlImage,
)

log = logging.getLogger(__name__)

SERVICE: Final = "medreward.v1.RewardService"
STREAM: Final = f"/{SERVICE}/ScoreStream"
HEALTH_METHODS: Final = "/grpc.health.v1.Health/"
ROLES: Final = ("system", "user", "assistant")
STREAM_CONCURRENCY: Final = 64
HEALTH_SECONDS: Final = 0.25
IDLE_SECONDS: Final = 300  # after which a connection without a call is closed; clients open another unseen
CALLS_A_CONNECTION: Final = 1024
FRAMING_BYTES: Final = 65_536  # what a message may have beyond the payload that the body limit is about

GRPC_CODE: Final[dict[Code, grpc.StatusCode]] = {
    Code.IMAGE_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_TOO_SMALL: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_KIND: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_ANIMATED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Code.IMAGE_URL_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_FETCH_FAILED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.IMAGE_REQUIRED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNSUPPORTED_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.EMPTY_QUESTION: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BAD_TEXT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_LONG: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NON_FINITE_SCORE: grpc.StatusCode.INTERNAL,
    Code.WORKER_LOST: grpc.StatusCode.UNAVAILABLE,
    Code.OUT_OF_MEMORY: grpc.StatusCode.UNAVAILABLE,
    Code.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.JSON_TOO_DEEP: grpc.StatusCode.INVALID_ARGUMENT,
    Code.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNKNOWN_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Code.TOO_MANY: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BODY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.HEADERS_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.SLOW_BODY: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.MEDIA_TYPE: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED: grpc.StatusCode.UNIMPLEMENTED,
    Code.VERSION_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Code.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Code.CLIENT_LEFT: grpc.StatusCode.CANCELLED,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Code.HOST_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

CALLER: Final[ContextVar[Caller]] = ContextVar("caller")  # set by the gate, and by nobody else
Context = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)
Ready = asyncio.Queue[pb.ScoreResponse | None]  # None: no more to come


@dataclass(slots=True)
class Call:
    """One call on its way: what its metadata say, what the log will say, and what it ends in."""

    metadata: Mapping[str, str]
    entry: Entry
    code: grpc.StatusCode = grpc.StatusCode.OK

    @property
    def trailing(self) -> list[tuple[str, str]]:
        """What every answer says of its request's id."""
        replaced = [("x-request-id-replaced", "true")] if self.entry.id_replaced else []
        return [("x-request-id", self.entry.request_id), *replaced]


def _call_of(metadata: Mapping[str, str], context: Context, rule: RequestIds, caller: Caller = ANYONE) -> Call:
    return Call(metadata, Entry(*request_id(metadata.get("x-request-id"), rule), _address(context.peer()), caller))


def _address(peer: str) -> str:
    """Of `ipv4:127.0.0.1:5000` and `ipv6:%5B::1%5D:5000` the address."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


class RewardService:
    """Its methods take messages as they arrived, so that what cannot be read is refused like all else."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rule = engine.settings.request_ids
        self._calls = 0
        engine.metrics.grpc_calls.watch(lambda: self._calls, engine.settings.grpc_calls)

    def handlers(self) -> grpc.GenericRpcHandler:
        def answering(
            method: Callable[..., Any], kind: Callable[..., Any] = grpc.unary_unary_rpc_method_handler
        ) -> Any:
            return kind(method, response_serializer=_written)

        methods = {
            "Score": answering(self.score),
            "ScoreStream": answering(self.score_stream, grpc.stream_stream_rpc_method_handler),
            "PutImage": answering(self.put_image),
            "GetModel": answering(self.get_model),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def score(self, message: bytes, context: Context) -> pb.ScoreResponse:
        async with self._call("Score", context) as call:
            with self._engine.bodies.holding(len(message)):
                request = self._read(pb.ScoreRequest, message)
                entry = call.entry
                if request.request_id:
                    entry.request_id, entry.id_replaced = request_id(request.request_id, self._rule)
                asked = _score_request(request, call, entry.request_id, context)
                entry.caller.charge(asked.triples)
                response = await self._engine.score(asked)
                entry.add(response)
                context.set_trailing_metadata(tuple(call.trailing))
                return score_reply(response, request.request_id)

    async def score_stream(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[pb.ScoreResponse]:
        async with self._call("ScoreStream", context, is_stream=True) as call:
            ready: Ready = asyncio.Queue()
            slots = asyncio.Semaphore(STREAM_CONCURRENCY)
            scoring = asyncio.create_task(self._score_all(messages, call, context, ready, slots))
            scoring.add_done_callback(lambda _: ready.put_nowait(None))
            try:
                while (response := await ready.get()) is not None:
                    yield response
                    slots.release()
                await scoring  # what ended the reading, such as a message that is none, ends the call
            finally:
                scoring.cancel()

    async def put_image(self, message: bytes, context: Context) -> pb.PutImageResponse:
        async with self._call("PutImage", context) as call:
            with self._engine.bodies.holding(len(message)):
                request = self._read(pb.PutImageRequest, message)
                _, file = await self._engine.put_image(request.data, call.entry.caller.tenant)
            return pb.PutImageResponse(sha256=file.digest, width=file.header.width, height=file.header.height)

    async def get_model(self, message: bytes, context: Context) -> pb.Model:
        async with self._call("GetModel", context) as call:
            self._read(pb.GetModelRequest, message)
            serving = self._engine.serving
            model, limits = serving.model, limits_of(self._engine.settings, serving.model)
            limits |= call.entry.caller.limits()
            return pb.Model(
                ref=_ref(serving.ref),
                dimensions=model.manifest.dimensions,
                default_weights=model.default_weights,
                limits=limits,
            )

    def _read(self, kind: type[M], message: bytes) -> M:
        check_message(message, pb.ScoreRequest.ITEMS_FIELD_NUMBER, self._engine.settings)
        try:
            read = kind.FromString(message)
        except DecodeError:
            raise RequestError(Code.MALFORMED, "the message cannot be read") from None
        size = read.ByteSize()
        read.DiscardUnknownFields()
        if read.ByteSize() < size:
            raise RequestError(Code.UNKNOWN_FIELD, "the message has a field that is not known")
        return read

    async def _score_all(
        self,
        messages: AsyncIterator[bytes],
        call: Call,
        context: Context,
        ready: Ready,
        slots: asyncio.Semaphore,
    ) -> None:
        """Answers as they become ready. A slot is a request that was read and whose answer is not sent yet."""

        async def score(request: pb.ScoreRequest, size: int) -> None:
            ready.put_nowait(await self._score_streamed(request, size, call, context))

        unreadable: RequestError | None = None
        async with asyncio.TaskGroup() as running:
            try:
                async for message in messages:
                    request = self._read(pb.ScoreRequest, message)
                    await slots.acquire()
                    running.create_task(score(request, len(message)))
            except RequestError as error:
                unreadable = error
        if unreadable:
            raise unreadable

    async def _score_streamed(
        self, request: pb.ScoreRequest, size: int, call: Call, context: Context
    ) -> pb.ScoreResponse:
        """A stream goes on after a refused request: its refusal is the error of each of its results."""
        entry = call.entry
        id_ = request_id(request.request_id, self._rule)[0] if request.request_id else entry.request_id
        try:
            with entry.caller.request(), self._engine.bodies.holding(size):
                asked = _score_request(request, call, id_, context)
                entry.caller.charge(asked.triples)
                response = await self._engine.score(asked)
                entry.add(response)
                return score_reply(response, request.request_id)
        except MedRewardError as error:
            refused = error
        except Exception:
            log.exception("the server failed on this request", extra={"request_id": id_})
            refused = OUR_FAULT
        reply = _refusal(request, id_, refused)
        entry.outcomes[str(refused.code)] += len(reply.results)
        self._engine.metrics.refused.labels(STREAM, refused.code).inc()
        return reply

    @asynccontextmanager
    async def _call(self, method: str, context: Context, is_stream: bool = False) -> AsyncIterator[Call]:
        """Around every call: its errors become status codes, and it is counted. A stream's messages are requests."""
        started = time.perf_counter()
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        call = _call_of(metadata, context, self._rule, CALLER.get())
        entry = call.entry
        self._calls += 1
        try:
            with nullcontext() if is_stream else entry.caller.request():
                yield call
        except MedRewardError as error:
            await _abort(context, call, error)
        except Exception:
            log.exception("the server failed on this request", extra={"request_id": entry.request_id})
            await _abort(context, call, OUR_FAULT)
        except asyncio.CancelledError:
            call.code = grpc.StatusCode.CANCELLED
            raise
        finally:
            self._calls -= 1
            seconds = time.perf_counter() - started
            observe(self._engine.metrics, f"/{SERVICE}/{method}", call.code.name, seconds, entry)


def _written(reply: Message) -> bytes:
    return reply.SerializeToString()


def _refusal(request: pb.ScoreRequest, id_: str, refused: MedRewardError) -> pb.ScoreResponse:
    error = pb.Error(code=refused.code, message=refused.detail, field=refused.field)
    places = [(i, j) for i, item in enumerate(request.items) for j in range(len(item.responses))]
    results = [pb.Result(item=i, response=j, error=error) for i, j in places or [(0, 0)]]
    return pb.ScoreResponse(request_id=request.request_id or id_, results=results)


def _score_request(request: pb.ScoreRequest, call: Call, id_: str, context: Context) -> ScoreRequest:
    metadata, entry = call.metadata, call.entry
    entry.lane = read_lane(request.lane or metadata.get("x-lane"))
    entry.caller.check_lane(entry.lane)
    deadlines = [context.time_remaining(), read_deadline(metadata.get("x-deadline-ms"))]
    return ScoreRequest(
        id=id_,
        items=tuple(_item(i, item) for i, item in enumerate(request.items)),
        weights=dict(request.weights),
        options=Options(
            option(TooLong, request.options.too_long or TooLong.ERROR, "/options/too_long"),
            option(Thinking, request.options.thinking or Thinking.KEEP, "/options/thinking"),
        ),
        lane=entry.lane,
        deadline_s=min((deadline for deadline in deadlines if deadline is not None), default=None),
        fingerprint=request.expect_fingerprint or metadata.get("x-model-fingerprint"),
        tenant=entry.caller.tenant,
    )


def _item(i: int, item: pb.Item) -> Item:
    for t, turn in enumerate(item.history):
        if turn.role not in ROLES:
            raise RequestError(
                Code.INVALID_FIELD, f"role must be one of: {', '.join(ROLES)}", f"/items/{i}/history/{t}/role"
            )
    images = tuple(_image(image) for image in item.images)
    turns = tuple(Turn(turn.role, turn.content) for turn in item.history)
    return Item(item.question, tuple(item.responses), images, turns)


def _image(image: pb.Image) -> ImageSource:
    match image.WhichOneof("source"):
        case "sha256":
            return StoredImage(image.sha256)
        case "url":
            return UrlImage(image.url)
        case _:
            return InlineImage(image.data)


def score_reply(response: ScoreResponse, written_id: str = "") -> pb.ScoreResponse:
    """Under the id that the message had, as it was written there: the client matches by it."""
    t = response.timings
    return pb.ScoreResponse(
        request_id=written_id or response.id,
        model=_ref(response.model),
        results=[_result(result) for result in response.results],
        timings=pb.Timings(
            decode_ms=t.decode * 1000, queue_ms=t.queue * 1000, inference_ms=t.inference * 1000, total_ms=t.total * 1000
        ),
    )


def _ref(model: ModelRef) -> pb.ModelRef:
    return pb.ModelRef(
        name=model.name,
        version=model.version,
        fingerprint=model.fingerprint,
        runtime=model.runtime,
        evidence=model.evidence,
    )


def _result(result: Result) -> pb.Result:
    if isinstance(result, Failed):
        error = pb.Error(code=result.error.code, message=result.error.detail, field=pointer_to(result))
        return pb.Result(item=result.item, response=result.response, flags=result.flags, error=error)
    return pb.Result(
        item=result.item,
        response=result.response,
        scores=_six(result.scores),
        logits=_six(result.logits),
        uncertainty=_six(result.uncertainty) if result.uncertainty else None,
        reward=result.reward,
        flags=result.flags,
        cached=result.cached,
    )


def _six(values: Six) -> pb.Dimensions:
    return pb.Dimensions(**dict(zip(DIMENSIONS, values, strict=True)))


async def _abort(context: Context, call: Call, error: MedRewardError) -> NoReturn:
    call.code = GRPC_CODE[error.code]
    call.entry.refusal = error
    trailing = [("x-error-code", str(error.code)), *call.trailing]
    if error.field:
        trailing.append(("x-error-field", error.field))
    if error.retry_after is not None:
        trailing.append(("grpc-retry-pushback-ms", str(int(error.retry_after * 1000))))
    await context.abort(call.code, error.detail, tuple(trailing))


class KeyGate(grpc.aio.ServerInterceptor):
    """In front of every method but health's: a key that opens it, before the message is read."""

    def __init__(self, keys: Keyring, metrics: Metrics, rule: RequestIds) -> None:
        self._keys = keys
        self._metrics = metrics
        self._rule = rule

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if method.startswith(HEALTH_METHODS):
            return handler
        metadata: Sequence[tuple[str, str]] = handler_call_details.invocation_metadata
        try:
            caller = self._keys.identify([value for key, value in metadata if key == "authorization"])
            caller.check_scope(Scope.SCORE)
        except RequestError as error:
            return self._refusing(error, method if handler else UNMATCHED, dict(metadata))
        CALLER.set(caller)
        return handler

    def _refusing(self, error: RequestError, route: str, metadata: Mapping[str, str]) -> Any:
        async def refuse(_: object, context: Context) -> None:
            call = _call_of(metadata, context, self._rule)
            try:
                await _abort(context, call, error)
            finally:
                observe(self._metrics, route, call.code.name, 0.0, call.entry)

        return grpc.stream_stream_rpc_method_handler(refuse)  # of a stream no message is awaited


class Rpc:
    """The gRPC server, its health service kept in step with the engine's readiness."""

    def __init__(self, engine: Engine, keys: Keyring, tls: Tls | None = None) -> None:
        self._engine = engine
        self._tls = tls
        settings = engine.settings
        self._server = grpc.aio.server(
            interceptors=[KeyGate(keys, engine.metrics, settings.request_ids)],
            options=[
                ("grpc.max_receive_message_length", settings.body_bytes + FRAMING_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # two servers never share a port unseen
                ("grpc.compression_enabled_algorithms_bitset", 1),  # none, as at the REST door
                ("grpc.max_metadata_size", settings.header_bytes),
                ("grpc.absolute_max_metadata_size", settings.header_bytes),
                ("grpc.max_concurrent_streams", CALLS_A_CONNECTION),
                ("grpc.server_handshake_timeout_ms", int(settings.header_seconds * 1000)),
                ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
            ],
            maximum_concurrent_rpcs=settings.grpc_calls,
        )
        engine.metrics.expect((f"/{SERVICE}/Score", STREAM), "OK", Lane)
        engine.metrics.expect((f"/{SERVICE}/PutImage", f"/{SERVICE}/GetModel"), "OK")
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((RewardService(engine).handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, host: str, port: int) -> int:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._tls:
            bound = self._server.add_secure_port(address, self._tls.grpc_credentials())
        else:
            bound = self._server.add_insecure_port(address)
        await self._tell_health()
        await self._server.start()
        self._mirror = asyncio.create_task(self._mirror_health(), name="grpc-health")
        return bound

    async def stop(self, grace: float) -> None:
        self._mirror.cancel()
        await self._server.stop(grace)

    async def _mirror_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            await self._tell_health()

    async def _tell_health(self) -> None:
        kind = health_pb2.HealthCheckResponse
        status = kind.NOT_SERVING if self._engine.not_ready() else kind.SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)
