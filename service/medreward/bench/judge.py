"""A generative model as the judge: each case in both orders, n samples of each, a majority of what can be read."""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from medreward.bench import votes
from medreward.bench.cases import Case, Choice
from medreward.bench.chat import Chat
from medreward.bench.chooser import OK, About, Prediction, Reply, unanswered
from medreward.errors import Code, ConfigurationError
from medreward.types import DIMENSIONS

ORDERS: Final = ("AB", "BA")
PLACES: Final = ("question", "answer_a", "answer_b")
MILLION: Final = 1_000_000
#: What chat endpoints take; every other kind is sent as PNG.
USUAL_KINDS: Final = ("JPEG", "PNG", "WEBP", "GIF")
UNPARSEABLE: Final = "judge_unparseable"


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """What decides a judge's votes, beside the judge."""

    model: str
    prompt: str
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int | None = None

    def json(self) -> dict[str, Any]:
        """Returns the settings as run.json holds them; of the prompt, a digest."""
        return {
            "judge": self.model,
            "prompt": f"sha256:{hashlib.sha256(self.prompt.encode()).hexdigest()}",
            "samples": self.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


@dataclass(frozen=True, slots=True)
class Prices:
    """The price of a million tokens, in whatever currency."""

    prompt: float | None = None
    completion: float | None = None


class Judge:
    def __init__(self, chat: Chat, settings: JudgeSettings, prices: Prices) -> None:
        self._chat = chat
        self._settings = settings
        self._prices = prices

    async def about(self) -> About:
        return About(self._settings.model)

    async def choose(self, case: Case) -> Prediction:
        try:
            image = data_url(case.image) if case.image else None
        except (OSError, ValueError, SyntaxError):
            return unanswered(Code.IMAGE_INVALID)
        replies = [
            await self.ask(case, image, order, sample) for order in ORDERS for sample in range(self._settings.samples)
        ]
        return by_votes(replies)

    def totals(self, predictions: list[Mapping[str, Any]]) -> dict[str, Any]:
        replies = [reply for prediction in predictions for reply in prediction.get("replies", ())]
        tokens = {name: sum(reply[f"{name}_tokens"] or 0 for reply in replies) for name in ("prompt", "completion")}
        prices = {"prompt": self._prices.prompt, "completion": self._prices.completion}
        known = [tokens[name] * price / MILLION for name, price in prices.items() if price is not None]
        return {
            "calls": len(replies),
            "calls_without_usage": sum(reply["prompt_tokens"] is None for reply in replies),
            "prompt_tokens": tokens["prompt"],
            "completion_tokens": tokens["completion"],
            "cost": round(sum(known), 6) if known else None,
        }

    async def aclose(self) -> None:
        await self._chat.aclose()

    async def ask(self, case: Case, image: str | None, order: str, sample: int) -> Reply:
        """Returns one text of the judge, on the answers in this order; `image` is a data URL."""
        settings = self._settings
        shown = case.answers if order == ORDERS[0] else case.answers[::-1]
        text = fill_in(settings.prompt, case.question, shown)
        image_part = [{"type": "image_url", "image_url": {"url": image}}] if image else []
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": "user", "content": [*image_part, {"type": "text", "text": text}]}],
            "temperature": settings.temperature,
        }
        if settings.temperature:
            body["seed"] = sample
        if settings.max_tokens:
            body["max_tokens"] = settings.max_tokens
        reply = await self._chat.ask(body, votes.RESPONSE_FORMAT)
        vote = votes.read_vote(reply.text) if reply.text is not None else None
        choices = votes.turned(vote) if vote and order != ORDERS[0] else vote
        return Reply(order, sample, reply.text, choices, reply.error, reply.prompt_tokens, reply.completion_tokens)


def by_votes(replies: Sequence[Reply]) -> Prediction:
    """Returns the majority of the votes. A text that cannot be read is none; with no vote the case is unanswered."""
    cast = [reply.choices for reply in replies if reply.choices]
    choices: dict[str, Choice | None] = {dimension: votes.majority(cast, dimension) for dimension in DIMENSIONS}
    errors = {reply.error for reply in replies}
    error = errors.pop() if len(errors) == 1 else None
    return Prediction(OK if cast else error or UNPARSEABLE, choices, replies=tuple(replies))


def read_prompt(file: Path | None) -> str:
    """Returns the user's own prompt, or ours; raises ConfigurationError if a place for a text is missing in it."""
    if file is None:
        return resources.files("medreward.bench").joinpath("judge_prompt.txt").read_text("utf-8")
    try:
        prompt = file.read_text("utf-8")
    except (OSError, ValueError):
        raise ConfigurationError(f"the prompt {file} cannot be read as text") from None
    if missing := [f"{{{place}}}" for place in PLACES if f"{{{place}}}" not in prompt]:
        raise ConfigurationError(f"the prompt {file} must hold {' and '.join(missing)}")
    return prompt


def fill_in(prompt: str, question: str, shown: tuple[str, str]) -> str:
    """Returns the prompt with the texts in their places, in one pass: an answer cannot hold a place of its own."""
    texts = dict(zip(PLACES, (question, *shown), strict=True))
    return re.sub(rf"{{({'|'.join(PLACES)})}}", lambda place: texts[place[1]], prompt)


def data_url(image: bytes) -> str:
    """Returns the image as a data URL, as PNG where it is of an unusual kind; raises what Pillow raises."""
    from PIL import Image

    picture = Image.open(BytesIO(image))
    kind = picture.format or ""
    if kind not in USUAL_KINDS:
        file = BytesIO()
        picture.convert("RGB").save(file, "PNG")
        image, kind = file.getvalue(), "PNG"
    return f"data:image/{kind.lower()};base64,{b64encode(image).decode()}"
