"""The client that a command asks with: of a server, or of a model in this process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from medreward.clients import AsyncClient, ClientError, Patience, Tls
from medreward.clients.score import Score
from medreward.clients.transport import Transport
from medreward.errors import ConfigurationError

TIMEOUT_S: Final = 150.0  # longer than a server's deadline, which then decides


async def connect(
    url: str | None,
    key: str | None,
    local: Mapping[str, Any],
    *,
    tls: Tls | None = None,
    concurrency: int = 1,
    retry_seconds: float = 0.0,
    store_images: bool = True,
) -> AsyncClient:
    """Returns a client of the server at `url`; without one, of the model that the flags `local` name.

    Raises ConfigurationError where the URL or the key is wrong, or the model cannot be served.
    """
    where: str | Transport
    if url:
        where, timeout = url, TIMEOUT_S
    else:
        from medreward.cli.in_process import EngineTransport
        from medreward.cli.serve import read_settings

        settings = read_settings(**local)
        where, timeout = await EngineTransport.start(settings), settings.deadline_seconds
    try:
        return AsyncClient(
            where,
            key=key,
            tls=tls,
            timeout=timeout,
            patience=Patience(retry_seconds),
            concurrency=concurrency,
            store_images=store_images,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


@asynccontextmanager
async def open_client(
    url: str | None, key: str | None, local: Mapping[str, Any], **how: Any
) -> AsyncIterator[AsyncClient]:
    """Gives what `connect` returns, and closes it; what the client raises becomes a ConfigurationError."""
    async with await connect(url, key, local, **how) as client:
        try:
            yield client
        except ClientError as error:
            raise ConfigurationError(str(error)) from None


def result_json(score: Score, place: int, item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the score of an item's response as the contract's JSON has it; its pointer is one into `item`.

    It has no `cached`, which tells how an answer came about: two runs of `score-file` must write the same file.
    """
    numbers = {"scores": score.scores, "logits": score.logits, "uncertainty": score.uncertainty, "reward": score.reward}
    rest = {**numbers, "flags": list(score.flags)}
    if not score.error:
        return {"item": 0, "response": place, "status": "ok", **rest, **_more_json(score, place)}
    # The call that asked may have held the item in another form than it is written in.
    part = (score.field or "").partition("/items/")[2].partition("/")[2]
    if part.startswith("image") or (not part and score.error.startswith("image_")):
        part = "images/0" if item.get("images") else "image"
    elif part.startswith("response"):
        part = f"responses/{place}" if item.get("responses") else "response"
    return {
        "item": 0,
        "response": place,
        "status": "error",
        "error": error_json(score.error, score.message, part),
        **rest,
    }


def _more_json(score: Score, place: int) -> dict[str, Any]:
    """Returns the steps and the numbers without thoughts, where they were asked for."""
    more: dict[str, Any] = {}
    if score.steps is not None:
        more["steps"] = [
            {"end": step.end, "logits": step.logits, "reward": step.reward}
            | ({"error": error_json(step.error, step.message, f"responses/{place}")} if step.error else {})
            for step in score.steps
        ]
    if aside := score.without_thinking:
        why = {"error": error_json(aside.error, aside.message, f"responses/{place}")} if aside.error else {}
        numbers = {"scores": aside.scores, "logits": aside.logits, "uncertainty": aside.uncertainty}
        more["without_thinking"] = {**numbers, "reward": aside.reward, "flags": list(aside.flags), **why}
    return more


def error_json(code: str, message: str | None, part: str) -> dict[str, str | None]:
    """Returns an error as the contract's JSON has it; `part` is that of the item which it is about, perhaps empty."""
    return {"code": code, "message": message, "field": f"/items/0/{part}" if part else "/items/0"}
