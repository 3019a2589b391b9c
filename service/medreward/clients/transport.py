"""The contract of a transport, which carries calls to a server: rest.py, rpc.py, and cli/in_process.py to an engine in
this process.
"""

import dataclasses
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from medreward.clients.errors import Refused
from medreward.clients.score import Policy, Reason, Reply, Score, Screened, ScreenRequest
from medreward.types import ModelRef, ScoreRequest, Verdict


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the authority that signed the server's certificate, and our own certificate where the server asks for
    one.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def context(self) -> ssl.SSLContext:
        """Returns what a connection of HTTP is made with; raises OSError where a file cannot be read or is no PEM."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context


class Transport(Protocol):
    """Each method makes one try. It returns the whole answer to what was sent, or raises Refused."""

    async def score(self, request: ScoreRequest, affinity: str | None) -> Reply:
        """Returns a Score for each response of each item. `affinity` is for a balancer that hashes."""

    async def screen(self, request: ScreenRequest, affinity: str | None) -> Reply:
        """Returns a Screened, with the server's verdict, for each response of each item."""

    async def put_image(self, data: bytes, digest: str) -> None:
        """Stores the image, which has this sha256, at the server."""

    async def model(self) -> ModelRef:
        """Returns what the server serves now."""

    async def weights(self, viewpoint: str | None) -> Mapping[str, float]:
        """Returns the weights of a request that gives none, but perhaps a viewpoint; none for an unknown viewpoint."""

    async def limits(self) -> Mapping[str, float]:
        """Returns the server's limits by name."""

    async def close(self) -> None:
        """Gives back all connections."""


def garbled() -> Refused:
    """Returns the refusal for a reply that belongs to another call or is not whole."""
    return Refused("garbled", "the reply is not the answer to this call", retryable=True)


def decided(
    score: Score,
    verdict: Verdict,
    reasons: tuple[Reason, ...],
    margin: float | None,
    policy: Policy,
    decision_id: str,
) -> Screened:
    """Returns the score with the verdict on it. Raises `garbled` for an error that is not unscored: such a reply is not
    to be believed.
    """
    if score.error and verdict is not Verdict.UNSCORED:
        raise garbled()
    parts = {field.name: getattr(score, field.name) for field in dataclasses.fields(Score)}
    return Screened(**parts, verdict=verdict, reasons=reasons, margin=margin, policy=policy, decision_id=decision_id)


def by_item(request: ScoreRequest, results: Iterable[tuple[int, int, Score]]) -> list[list[Score]]:
    """Returns the scores by item and response; raises `garbled` unless there is one for each response, in order."""
    expected = [(i, j) for i, item in enumerate(request.items) for j in range(len(item.responses))]
    answers = list(results)
    if [(item, response) for item, response, _ in answers] != expected:
        raise garbled()
    scores: list[list[Score]] = [[] for _ in request.items]
    for item, _, score in answers:
        scores[item].append(score)
    return scores
