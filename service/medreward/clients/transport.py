"""What the client asks of a way to the server: rest.py and rpc.py, and the engine itself in cli/in_process.py."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from medreward.clients.errors import Refused
from medreward.clients.score import Reply, Score
from medreward.types import ModelRef, ScoreRequest


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authority that signed the server's certificate, and our own certificate where it asks for one."""

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


class Transport(Protocol):
    """Each call is one try: it gives the whole right answer to what was sent, or raises Refused."""

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply: ...

    async def put_image(self, data: bytes, digest: str) -> None: ...

    async def model(self) -> ModelRef: ...

    async def close(self) -> None: ...


def garbled() -> Refused:
    return Refused("garbled", "the reply is not the answer to this call", retryable=True)


def by_item(request: ScoreRequest, results: Iterable[tuple[int, int, Score]]) -> list[list[Score]]:
    """Scores by item and response; garbled unless there is one for each, in order."""
    expected = [(i, j) for i, item in enumerate(request.items) for j in range(len(item.responses))]
    answers = list(results)
    if [(item, response) for item, response, _ in answers] != expected:
        raise garbled()
    scores: list[list[Score]] = [[] for _ in request.items]
    for item, _, score in answers:
        scores[item].append(score)
    return scores
