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

from medreward.bench import verdict
from medreward.bench.answering import OK, About, Answer, Reply, unanswered
from medreward.bench.cases import Case, Choice
from medreward.bench.chat import Chat
from medreward.errors import Code, ConfigurationError
from medreward.types import DIMENSIONS

ORDERS: Final = ("AB", "BA")
PLACES: Final = ("question", "answer_a", "answer_b")
MILLION: Final = 1_000_000
#: What chat endpoints take; every other kind is sent as PNG.
USUAL_KINDS: Final = ("JPEG", "PNG", "WEBP", "GIF")
UNPARSEABLE: Final = "judge_unparseable"


@dataclass(frozen=True, slots=True)
class Asking:
    """What decides a judge's answers, beside the judge."""

    model: str
    prompt: str
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "judge": self.model,
            "prompt": f"sha256:{hashlib.sha256(self.prompt.encode()).hexdigest()}",
            "samples": self.samples,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in whatever currency."""

    prompt: float | None = None
    completion: float | None = None


class Judge:
    def __init__(self, chat: Chat, asking: Asking, prices: Prices) -> None:
        self._chat = chat
        self._asking = asking
        self._prices = prices

    async def about(self) -> About:
        return About(self._asking.model)

    async def answer(self, case: Case) -> Answer:
        try:
            image = data_url(case.image) if case.image else None
        except (OSError, ValueError, SyntaxError):
            return unanswered(Code.IMAGE_INVALID)
        replies = [
            await self._ask(case, image, order, sample) for order in ORDERS for sample in range(self._asking.samples)
        ]
        return decided(replies)

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

    async def _ask(self, case: Case, image: str | None, order: str, sample: int) -> Reply:
        shown = case.answers if order == ORDERS[0] else case.answers[::-1]
        text = filled(self._asking.prompt, case.question, shown)
        shown_image = [{"type": "image_url", "image_url": {"url": image}}] if image else []
        content = [*shown_image, {"type": "text", "text": text}]
        body: dict[str, Any] = {
            "model": self._asking.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": self._asking.temperature,
        }
        if self._asking.temperature:
            body["seed"] = sample
        if self._asking.max_tokens:
            body["max_tokens"] = self._asking.max_tokens
        said = await self._chat.say(body, verdict.RESPONSE_FORMAT)
        read = verdict.read_verdict(said.text) if said.text is not None else None
        choices = verdict.turned(read) if read and order != ORDERS[0] else read
        return Reply(order, sample, said.text, choices, said.error, said.prompt_tokens, said.completion_tokens)


def decided(replies: Sequence[Reply]) -> Answer:
    """A text that cannot be read is no vote; with no vote at all the case is unanswered."""
    votes = [reply.choices for reply in replies if reply.choices]
    choices: dict[str, Choice | None] = {dimension: verdict.majority(votes, dimension) for dimension in DIMENSIONS}
    errors = {reply.error for reply in replies}
    error = errors.pop() if len(errors) == 1 else None
    return Answer(OK if votes else error or UNPARSEABLE, choices, replies=tuple(replies))


def read_prompt(file: Path | None) -> str:
    """The user's own, or ours."""
    if file is None:
        return resources.files("medreward.bench").joinpath("judge_prompt.txt").read_text("utf-8")
    try:
        prompt = file.read_text("utf-8")
    except (OSError, ValueError):
        raise ConfigurationError(f"the prompt {file} cannot be read as text") from None
    if missing := [f"{{{place}}}" for place in PLACES if f"{{{place}}}" not in prompt]:
        raise ConfigurationError(f"the prompt {file} must hold {' and '.join(missing)}")
    return prompt


def filled(prompt: str, question: str, shown: tuple[str, str]) -> str:
    """In one pass, so that an answer cannot hold a place of its own."""
    texts = dict(zip(PLACES, (question, *shown), strict=True))
    return re.sub(rf"{{({'|'.join(PLACES)})}}", lambda place: texts[place[1]], prompt)


def data_url(image: bytes) -> str:
    from PIL import Image

    picture = Image.open(BytesIO(image))
    kind = picture.format or ""
    if kind not in USUAL_KINDS:
        file = BytesIO()
        picture.convert("RGB").save(file, "PNG")
        image, kind = file.getvalue(), "PNG"
    return f"data:image/{kind.lower()};base64,{b64encode(image).decode()}"
