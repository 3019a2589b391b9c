"""Reward functions for TRL's GRPOTrainer and RLOOTrainer; docs/trainers/trl.md shows how to use them."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, TypeAlias, Unpack

from medreward.clients import Client, NotScored, Score, Triple
from medreward.clients.images import ImageLike, image_bytes
from medreward.clients.shaping import Rewards, Shaping
from medreward.clients.sync import ClientOptions, ScoreOptions
from medreward.errors import Code
from medreward.types import DIMENSIONS, Thinking, TooLong

NAME: Final = "medreward"
IMAGE_COLUMNS: Final = ("images", "image")  # in the order in which TRL looks for them

log = logging.getLogger(__name__)

Text: TypeAlias = str | Sequence[Mapping[str, Any]]  # plain, or messages of a conversation
RewardFunction: TypeAlias = Any  # a list of anything narrower is not the list that TRL asks for


def reward_funcs(
    server: str | Client,
    *,
    weights: Mapping[str, float] | None = None,
    per_dimension: bool = False,
    image_column: str | None = None,
    question_column: str | None = None,
    too_long: TooLong | str = TooLong.ERROR,
    thinking: Thinking | str = Thinking.KEEP,
    shaping: Shaping | None = None,
    asynchronous: bool = False,
    **options: Unpack[ClientOptions],
) -> list[RewardFunction]:
    """For the trainer's `reward_funcs`: one function that gives the weighted reward, or six that share one call.

    `server` is a URL, with Client's options beside it, or a Client. The six give logits, the terms of the reward:
    their weights are the trainer's `reward_weights`. A response that could not be scored gives None, which TRL leaves
    out; with `strict` it stops the run with NotScored.

    Images are those of `image_column`, by default `images` or `image`, and without such a column those in the prompt.
    The question is the text of `question_column`, by default the prompt's last user turn: earlier turns are not sent,
    because no model reads them yet.
    """
    if per_dimension and weights:
        raise ValueError("with per_dimension, the weights are the trainer's reward_weights")
    if per_dimension and shaping and shaping.normalise_dimensions:
        raise ValueError('with per_dimension, the trainer normalises: multi_objective_aggregation="normalize_then_sum"')
    if shaping and shaping.needs_weights and not weights and not per_dimension:
        raise ValueError("this shaping needs weights: it adds the dimensions up itself")
    how: ScoreOptions = {"weights": weights, "too_long": TooLong(too_long), "thinking": Thinking(thinking)}
    batches = Batches(server, options, Columns(image_column, question_column), how)
    kind = AsyncReward if asynchronous else Reward
    return [kind(batches, dimension, shaping, weights) for dimension in (DIMENSIONS if per_dimension else (None,))]


class Columns:
    """Finds in a trainer's batch what is to be scored."""

    def __init__(self, image: str | None, question: str | None) -> None:
        self._image = image
        self._question = question

    def triples(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]
    ) -> list[Triple | Score]:
        """A Score where something is wrong before anything could be asked."""
        questions = _column(columns, self._question) if self._question else map(_question, prompts)
        pictures = _Pictures()
        return [
            _triple(pictures, images, question, _response(completion))
            for images, question, completion in zip(self._images(prompts, columns), questions, completions, strict=True)
        ]

    def _images(self, prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[list[ImageLike]]:
        name = self._image or next((name for name in IMAGE_COLUMNS if name in columns), None)
        if name is None:
            return [_images_in(prompt) for prompt in prompts]
        return [_listed(value) for value in _column(columns, name)]


@dataclass(frozen=True, slots=True)
class Batch:
    triples: Sequence[Triple | Score]
    scores: Sequence[Score]


class Batches:
    """Asks the server once for each batch, however many functions are called with it."""

    def __init__(self, server: str | Client, options: ClientOptions, columns: Columns, how: ScoreOptions) -> None:
        if options and not isinstance(server, str):
            raise TypeError("a Client that is given has its own options already")
        self._state = (server, options, columns, how)
        self.client = Client(server, **options) if isinstance(server, str) else server
        self._columns = columns
        self._how = how
        self._strict = options.get("strict", False)
        self._lock = threading.Lock()
        self._last: tuple[Any, Any, Batch] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Batches, self._state  # a copy has a client of its own

    def get(self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]) -> Batch:
        with self._lock:
            # The very same lists are the same batch; they are held here, so no other list can have their place.
            if self._last is None or self._last[0] is not prompts or self._last[1] is not completions:
                batch = self._asked(self._columns.triples(prompts, completions, columns))
                _report(batch.scores, columns)
                self._last = prompts, completions, batch
            return self._last[2]

    def _asked(self, triples: Sequence[Triple | Score]) -> Batch:
        answers = iter(self.client.score_many([t for t in triples if isinstance(t, Triple)], **self._how))
        scores = [next(answers) if isinstance(triple, Triple) else triple for triple in triples]
        if self._strict:
            for score in scores:
                if score.error:
                    raise NotScored(score.error, score.message or "")
        return Batch(triples, scores)


class Function:
    """What TRL's trainers call, and log by its name."""

    def __init__(
        self, batches: Batches, dimension: str | None, shaping: Shaping | None, weights: Mapping[str, float] | None
    ) -> None:
        self.__name__ = dimension or NAME
        self.batches = batches
        self._dimension = dimension
        self._shaping = shaping or Shaping()
        self._weights = weights

    def rewards(self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]) -> Rewards:
        batch = self.batches.get(prompts, completions, columns)
        groups = [(t.image, t.question) if isinstance(t, Triple) else None for t in batch.triples]
        lengths = [len(t.response) if isinstance(t, Triple) else 0 for t in batch.triples]
        if self._dimension is None:
            _log_dimensions(batch.scores, columns)
            return self._shaping(batch.scores, groups, lengths, self._weights)
        alone = [_alone(score, self._dimension) for score in batch.scores]
        return self._shaping(alone, groups, lengths, {self._dimension: 1.0})


class Reward(Function):
    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        return self.rewards(prompts, completions, columns)


class AsyncReward(Function):
    async def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        return await asyncio.to_thread(self.rewards, prompts, completions, columns)


class _Pictures:
    """Images as files. Answers to one question come one after the other, each with a copy of the same image."""

    def __init__(self) -> None:
        self._last: tuple[ImageLike, bytes | str | None] = (None, None)

    def file(self, image: ImageLike) -> bytes | str | None:
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            return image
        last, file = self._last
        if (image == last) is not True:  # of two arrays, == is an array
            file = image_bytes(image)
            self._last = image, file
        return file


def _triple(pictures: _Pictures, images: Sequence[ImageLike], question: str, response: str) -> Triple | Score:
    if len(images) > 1:
        return Score(error=Code.UNSUPPORTED_FIELD, message="more than one image")
    try:
        return Triple(pictures.file(images[0]) if images else None, question, response)
    except (OSError, SyntaxError, ValueError) as error:  # the second from Pillow, of broken PNG files
        return Score(error=Code.IMAGE_INVALID, message=str(error))


def _alone(score: Score, dimension: str) -> Score:
    """As if that dimension were the whole reward."""
    if not score.logits:
        return score
    doubt = {dimension: score.uncertainty[dimension]} if score.uncertainty else None
    logit = score.logits[dimension]
    return Score(reward=logit, logits={dimension: logit}, uncertainty=doubt)


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        raise ValueError(f"the data set has no column {name!r}")
    return columns[name]


def _listed(value: Any) -> list[ImageLike]:
    if isinstance(value, list | tuple):
        return [image for image in value if image is not None]
    return [] if value is None else [value]


def _images_in(prompt: Text) -> list[ImageLike]:
    if isinstance(prompt, str):
        return []
    parts = [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image" and part.get("image") is not None]


def _question(prompt: Text) -> str:
    return prompt if isinstance(prompt, str) else _last(prompt, "user")


def _response(completion: Text) -> str:
    return completion if isinstance(completion, str) else _last(completion, "assistant")


def _last(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text of that role's last turn."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == role), None)
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _report(scores: Sequence[Score], columns: Mapping[str, Any]) -> None:
    """What was not scored, in one line; and to the trainer's log, where it takes more than rewards."""
    causes = Counter(score.error or "no_reward" for score in scores if score.reward is None)
    if causes:
        counted = ", ".join(f"{code} {count}" for code, count in causes.most_common())
        log.warning("%d of %d responses not scored: %s", causes.total(), len(scores), counted)
    if log_metric := columns.get("log_metric"):
        log_metric(f"{NAME}/unscored", causes.total() / max(1, len(scores)))
    if log_extra := columns.get("log_extra"):  # in every step, or TRL mixes up the rows of two steps
        log_extra(f"{NAME}_error", [score.error for score in scores])


def _log_dimensions(scores: Sequence[Score], columns: Mapping[str, Any]) -> None:
    """What the weighted reward is made of, so that a policy which feeds on one dimension is seen."""
    logits = [score.logits for score in scores if score.logits]
    if logits and (log_metric := columns.get("log_metric")):
        for dimension in DIMENSIONS:
            known = [logit for six in logits if (logit := six[dimension]) is not None]
            if known:
                log_metric(f"{NAME}/{dimension}", fmean(known))
