"""Reward functions for ms-swift's GRPO; docs/trainers/ms_swift.md shows how to use them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from medreward.clients.calls import Triple
from medreward.clients.rewarding import LastBatch, Reward, RewardSource, SourceOptions
from medreward.clients.rows import Pictures, Text
from medreward.clients.score import Score
from medreward.clients.sync import Client
from medreward.clients.trl_batch import Columns
from medreward.types import DIMENSIONS

IMAGE_TAG = "<image>"  # which ms-swift writes into a message where an image stands


def reward_classes(
    server: str | Client,
    *,
    per_dimension: bool = False,
    question_column: str | None = None,
    allow_text_only: bool = False,
    asynchronous: bool = False,
    **how: Unpack[SourceOptions],
) -> dict[str, type]:
    """Returns what `orms.update` of a plugin takes: `medreward`, or `medreward_accuracy` and its five like.

    The six ask the server once for a batch and give logits; their weights are ms-swift's `--reward_weights`.
    """
    if per_dimension and how.get("weights"):
        raise ValueError("with per_dimension=True, give the weights to ms-swift, as --reward_weights")
    batches = Batches(RewardSource(server, **how), Columns(None, question_column, allow_text_only))
    kind = AsyncFunction if asynchronous else Function
    if not per_dimension:
        return {"medreward": type("medreward", (kind,), {"batches": batches, "dimension": None})}
    named = {f"medreward_{dimension}": dimension for dimension in DIMENSIONS}
    return {name: type(name, (kind,), {"batches": batches, "dimension": which}) for name, which in named.items()}


class Batches:
    """Asks the server once for each batch, however many functions are called with it."""

    def __init__(self, source: RewardSource, columns: Columns) -> None:
        self._source = source
        self._columns = columns
        self._pictures = Pictures()
        self._last: LastBatch[Sequence[Triple | Score], list[Reward]] = LastBatch()

    def get(self, function: str, completions: Sequence[Text], columns: Mapping[str, Any]) -> list[Reward]:
        """Returns the rewards of the batch as they were for another function, if it is the same to the last letter."""

        def triples() -> Sequence[Triple | Score]:
            prompts = [_without_tags(messages[:-1]) for messages in columns["messages"]]
            return self._columns.triples(prompts, completions, columns, self._pictures)

        return self._last.answer(function, triples, self._source.rewards)


class Function:
    """What ms-swift makes one of for a run, calls, and logs by its class's name."""

    batches: Batches
    dimension: str | None

    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args

    def __call__(self, completions: Sequence[Text], **columns: Any) -> list[float]:
        return self.rewards(completions, columns)

    def rewards(self, completions: Sequence[Text], columns: Mapping[str, Any]) -> list[float]:
        name = type(self).__name__
        rewards = self.batches.get(name, completions, columns)
        if self.dimension is None:
            return [reward.value for reward in rewards]
        logits = [reward.logits[self.dimension] for reward in rewards]
        if any(map(math.isnan, logits)):
            raise ValueError(f"the model has no dimension {self.dimension}: leave {name} out of --reward_funcs")
        return logits


class AsyncFunction(Function):
    async def __call__(self, completions: Sequence[Text], **columns: Any) -> list[float]:  # type: ignore[override]
        return await asyncio.to_thread(self.rewards, completions, columns)


def _without_tags(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the prompt with parts in place of the tags of its earlier turns, and the last turn without its tags."""
    return [_in_parts(message) for message in messages[:-1]] + [_last_without_tags(each) for each in messages[-1:]]


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message["content"]
    if not isinstance(content, str) or IMAGE_TAG not in content:
        return message
    texts = content.split(IMAGE_TAG)
    parts: list[Mapping[str, Any]] = [{"type": "text", "text": texts[0]}]
    for text in texts[1:]:
        parts += [{"type": "image"}, {"type": "text", "text": text}]
    return {**message, "content": parts}


def _last_without_tags(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message["content"]
    return {**message, "content": content.replace(IMAGE_TAG, "").lstrip()} if isinstance(content, str) else message
