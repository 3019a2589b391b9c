"""What the client asks of a way to the server; rest.py and rpc.py are the two."""

from typing import Protocol

from medreward.clients.score import Reply
from medreward.types import ModelRef, ScoreRequest


class Transport(Protocol):
    """Each call is one try: it gives the whole right answer to what was sent, or raises Refused."""

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply: ...

    async def put_image(self, data: bytes, digest: str) -> None: ...

    async def model(self) -> ModelRef: ...

    async def close(self) -> None: ...
