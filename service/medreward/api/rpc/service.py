"""The methods of the gRPC door. Each translates the message, calls the engine and translates its answer back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from operator import methodcaller
from typing import Any, Final

import grpc

from medreward.api.fields import OnUnscored, option, pointer_to
from medreward.api.observing import OUR_FAULT, Entry, request_id
from medreward.api.ranked import ranked
from medreward.api.rpc.middleware import Observe
from medreward.api.rpc.replies import model_ref, rank_reply, refusal_reply, score_reply, screen_reply
from medreward.api.rpc.requests import lane_of, read_message, score_request, screen_request
from medreward.api.rpc.status import Context
from medreward.engine.engine import Engine
from medreward.engine.limits import limits_of
from medreward.errors import Code, ItemError, MedRewardError, RequestError
from medreward.proto import reward_pb2 as pb
from medreward.screening.screening import Screening
from medreward.types import Lane, ScoreResponse

log = logging.getLogger(__name__)

SERVICE: Final = "medreward.v1.RewardService"
SCORE: Final = f"/{SERVICE}/Score"
STREAM: Final = f"/{SERVICE}/ScoreStream"
RANK: Final = f"/{SERVICE}/Rank"
SCREEN: Final = f"/{SERVICE}/Screen"
PUT_IMAGE: Final = f"/{SERVICE}/PutImage"
GET_MODEL: Final = f"/{SERVICE}/GetModel"
STREAM_CONCURRENCY: Final = 64

Replies = asyncio.Queue[pb.ScoreResponse | None]  # None: no more to come


class RewardService:
    """Its methods take messages as bytes, so that one that cannot be read is refused and logged as any other."""

    def __init__(self, engine: Engine, screening: Screening, observe: Observe) -> None:
        self._engine = engine
        self._screening = screening
        self._observe = observe

    def handlers(self) -> grpc.GenericRpcHandler:
        def answering(
            method: Callable[..., Any], kind: Callable[..., Any] = grpc.unary_unary_rpc_method_handler
        ) -> Any:
            return kind(method, response_serializer=methodcaller("SerializeToString"))

        methods = {
            "Score": answering(self.score),
            "ScoreStream": answering(self.score_stream, grpc.stream_stream_rpc_method_handler),
            "Rank": answering(self.rank),
            "Screen": answering(self.screen),
            "PutImage": answering(self.put_image),
            "GetModel": answering(self.get_model),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def score(self, message: bytes, context: Context) -> pb.ScoreResponse:
        engine = self._engine
        async with self._observe.call(SCORE, context) as entry:
            with engine.bodies.reserve(len(message)):
                request = read_message(pb.ScoreRequest, message, engine.settings)
                if request.request_id:
                    entry.request_id, entry.id_replaced = request_id(request.request_id, engine.settings.request_ids)
                reply = await self._score(request, context, entry, entry.request_id)
                context.set_trailing_metadata(tuple(entry.id_headers().items()))
                return reply

    async def score_stream(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[pb.ScoreResponse]:
        async with self._observe.call(STREAM, context, is_stream=True) as entry:
            replies: Replies = asyncio.Queue()
            slots = asyncio.Semaphore(STREAM_CONCURRENCY)
            scoring = asyncio.create_task(self._score_all(messages, context, entry, replies, slots))
            scoring.add_done_callback(lambda _: replies.put_nowait(None))
            try:
                while (reply := await replies.get()) is not None:
                    yield reply
                    slots.release()
                await scoring  # raises what ended the reading, such as a message that cannot be read: it ends the call
            finally:
                scoring.cancel()

    async def rank(self, message: bytes, context: Context) -> pb.RankResponse:
        engine = self._engine
        async with self._observe.call(RANK, context) as entry:
            with engine.bodies.reserve(len(message)):
                request = read_message(pb.ScoreRequest, message, engine.settings)
                if request.request_id:
                    entry.request_id, entry.id_replaced = request_id(request.request_id, engine.settings.request_ids)
                if len(request.items) != 1:
                    raise RequestError(Code.INVALID_FIELD, "exactly one item can be ranked in a call", "/items")
                response = await self._scored(request, context, entry, entry.request_id)
                context.set_trailing_metadata(tuple(entry.id_headers().items()))
                return rank_reply(response, ranked(response), request.request_id)

    async def screen(self, message: bytes, context: Context) -> pb.ScreenResponse:
        engine = self._engine
        async with self._observe.call(SCREEN, context) as entry:
            with engine.bodies.reserve(len(message)):
                request = read_message(pb.ScreenRequest, message, engine.settings)
                if request.request_id:
                    entry.request_id, entry.id_replaced = request_id(request.request_id, engine.settings.request_ids)
                entry.lane = lane_of(request, context, Lane.INTERACTIVE)
                entry.caller.check_lane(entry.lane)
                on_unscored = option(OnUnscored, request.on_unscored or OnUnscored.VERDICT, "/on_unscored")
                asked = screen_request(request, context, entry)
                entry.caller.charge(await self._engine.triples_of(asked.asked))
                screened = await self._screening.screen(asked)
            entry.add(screened.response)
            if on_unscored is OnUnscored.PROBLEM and (unscored := screened.first_unscored()):
                error = unscored.error
                raise ItemError(error.code, error.detail, pointer_to(unscored), error.retry_after)
            context.set_trailing_metadata(tuple(entry.id_headers().items()))
            return screen_reply(screened, request.request_id)

    async def put_image(self, message: bytes, context: Context) -> pb.PutImageResponse:
        async with self._observe.call(PUT_IMAGE, context) as entry:
            with self._engine.bodies.reserve(len(message)):
                request = read_message(pb.PutImageRequest, message, self._engine.settings)
                _, file = await self._engine.put_image(request.data, entry.caller.tenant)
            return pb.PutImageResponse(sha256=file.digest, width=file.header.width, height=file.header.height)

    async def get_model(self, message: bytes, context: Context) -> pb.Model:
        settings = self._engine.settings
        async with self._observe.call(GET_MODEL, context) as entry:
            read_message(pb.GetModelRequest, message, settings)
            serving = self._engine.serving
            return pb.Model(
                ref=model_ref(serving.ref),
                dimensions=serving.model.manifest.dimensions,
                default_weights=serving.model.default_weights,
                viewpoints={n: pb.Viewpoint(**v.model_dump()) for n, v in serving.model.manifest.viewpoints.items()},
                experts={n: pb.Departments(names=e.departments) for n, e in serving.model.manifest.experts.items()},
                limits=limits_of(settings, serving.model) | entry.caller.limits(),
            )

    async def _score(self, request: pb.ScoreRequest, context: Context, entry: Entry, id_: str) -> pb.ScoreResponse:
        return score_reply(await self._scored(request, context, entry, id_), request.request_id)

    async def _scored(self, request: pb.ScoreRequest, context: Context, entry: Entry, id_: str) -> ScoreResponse:
        """Returns the answer to a message that has been read. Its lane and its id stand in it, so a request is refused
        early after reading, but before anything is made of its items."""
        entry.lane = lane_of(request, context)
        entry.caller.check_lane(entry.lane)
        self._engine.refuse_early(entry.lane)
        asked = score_request(request, context, entry, id_)
        entry.caller.charge(await self._engine.triples_of(asked))
        response = await self._engine.score(asked)
        entry.add(response)
        return response

    async def _score_all(
        self,
        messages: AsyncIterator[bytes],
        context: Context,
        entry: Entry,
        replies: Replies,
        slots: asyncio.Semaphore,
    ) -> None:
        """Puts each reply in the queue once it is ready. A slot is a message that was read and whose reply is not
        sent yet. Raises the error of a message that cannot be read, after the replies to those before it."""

        async def score(request: pb.ScoreRequest, size: int) -> None:
            replies.put_nowait(await self._score_streamed(request, size, context, entry))

        unreadable: RequestError | None = None
        async with asyncio.TaskGroup() as running:
            try:
                async for message in messages:
                    request = read_message(pb.ScoreRequest, message, self._engine.settings)
                    await slots.acquire()
                    running.create_task(score(request, len(message)))
            except RequestError as error:
                unreadable = error
        if unreadable:
            raise unreadable

    async def _score_streamed(
        self, request: pb.ScoreRequest, size: int, context: Context, entry: Entry
    ) -> pb.ScoreResponse:
        """Returns the reply to one message. A refusal is the error of each of its results, and the stream goes on."""
        engine, id_ = self._engine, entry.request_id
        if request.request_id:
            id_, _ = request_id(request.request_id, engine.settings.request_ids)
        try:
            with entry.caller.request(), engine.bodies.reserve(size):
                return await self._score(request, context, entry, id_)
        except MedRewardError as error:
            refusal = error
        except Exception:
            log.exception("the server failed on this request", extra={"request_id": id_})
            refusal = OUR_FAULT
        reply = refusal_reply(request, id_, refusal)
        entry.outcomes[str(refusal.code)] += len(reply.results)
        engine.metrics.refused.labels(STREAM, refusal.code).inc()
        return reply
