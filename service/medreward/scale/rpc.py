"""Calls that come through Ray Serve's gRPC ingress, answered by the gRPC door's own methods."""

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from medreward.api.access.hosts import is_loopback
from medreward.api.access.keyring import Keyring
from medreward.api.rpc.middleware import AccessCheck, Observe, new_entry
from medreward.api.rpc.service import SERVICE, RewardService
from medreward.api.rpc.status import abort
from medreward.engine.engine import Engine
from medreward.errors import Code, RequestError
from medreward.proto import reward_pb2 as pb
from medreward.screening.screening import Screening
from medreward.settings import Settings

REPLIES: Final[Mapping[str, type[Message]]] = {
    "Score": pb.ScoreResponse,
    "ScoreStream": pb.ScoreResponse,
    "Rank": pb.RankResponse,
    "Screen": pb.ScreenResponse,
    "PutImage": pb.PutImageResponse,
    "GetModel": pb.Model,
}


#: Ray's proxies listen where they are told to, and its gRPC one everywhere; a replica learns of it from its callers.
STRANGER: Final = RequestError(
    Code.FORBIDDEN, "this server has no keys, and without them it answers callers of its own machine alone"
)


def refuses_strangers(settings: Settings) -> bool:
    """Returns whether callers of other machines are refused, as `serve` refuses to listen for them without keys."""
    return not (settings.keys_file or settings.insecure)


class Ended(Exception):
    """The call was ended with a status, which stands in its context."""


class CallContext:
    """What our methods ask of a call's context, on top of the one that Ray passes on to a replica."""

    def __init__(self, ray_context: Any) -> None:
        self._ray = ray_context

    def peer(self) -> str:
        return str(self._ray.peer() or "")

    def invocation_metadata(self) -> list[tuple[str, str]]:
        metadata: list[tuple[str, str]] = self._ray.invocation_metadata()
        return metadata

    def time_remaining(self) -> None:
        """Returns None: Ray does not tell a replica the call's deadline, but cancels the call when it has passed."""

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._ray.set_trailing_metadata(list(metadata))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Notes how the call ends and raises Ended."""
        self._ray.set_code(code)
        self._ray.set_details(details)
        self.set_trailing_metadata(trailing_metadata)
        raise Ended


class RayRpc:
    """The gRPC door of a replica: keys, ids, counts and errors are those of the service's own gRPC port."""

    def __init__(self, engine: Engine, keys: Keyring, screening: Screening) -> None:
        self._settings = settings = engine.settings
        self._access = AccessCheck(keys, engine.metrics, settings.request_ids)
        self._handlers = RewardService(engine, screening, Observe(engine.metrics, settings)).handlers()

    async def answer(self, method: str, message: Message, ray_context: Any) -> Message:
        """Returns the reply. A refusal is an empty one: Ray sends metadata of the context only beside a reply."""
        handler = await self._handler(method, ray_context)
        call = handler.unary_unary or handler.stream_stream  # the second one refuses
        try:
            reply: Message = await call(message.SerializeToString(), CallContext(ray_context))
        except Ended:
            return REPLIES[method]()
        return reply

    async def stream(self, method: str, messages: AsyncIterator[Message], ray_context: Any) -> AsyncIterator[Message]:
        """Gives the replies to a stream of messages, until one of the two ends."""

        async def as_bytes() -> AsyncIterator[bytes]:
            async for message in messages:
                yield message.SerializeToString()

        handler = await self._handler(method, ray_context)
        try:
            replies = handler.stream_stream(as_bytes(), CallContext(ray_context))
            if hasattr(replies, "__aiter__"):
                async for reply in replies:
                    yield reply
            else:
                await replies  # the refusal of a key
        except Ended:
            yield REPLIES[method]()

    async def _handler(self, method: str, ray_context: Any) -> Any:
        """Returns what answers the method, or what refuses it: for its key, or for where it comes from."""
        entry = new_entry(CallContext(ray_context), self._settings.request_ids)  # type: ignore[arg-type]  # part of it
        if refuses_strangers(self._settings) and not is_loopback(entry.client):

            async def refuse(_: Any, context: Any) -> None:
                await abort(context, entry, STRANGER)

            return SimpleNamespace(unary_unary=refuse, stream_stream=refuse)
        details = SimpleNamespace(method=f"/{SERVICE}/{method}", invocation_metadata=ray_context.invocation_metadata())

        async def unchecked(call: Any) -> Any:
            return self._handlers.service(call)

        return await self._access.intercept_service(unchecked, details)
