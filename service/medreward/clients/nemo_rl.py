"""NeMo-RL's environment; docs/trainers/nemo_rl.md shows how to use it. NeMo-RL imports this file by its name."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn

from medreward.clients.calls import Triple
from medreward.clients.rewarding import Reward, source_of
from medreward.clients.rows import Pictures, images_in, listed, one_triple, plain_question, question_in, turns_in
from medreward.clients.score import Score
from medreward.types import Turn


class Environment(EnvironmentInterface):
    """Scores the last assistant turn of each conversation.

    Its settings are `env.medreward`: `url`, and beside it `weights`, `on_error` and Client's options. With `weights`
    and `per_dimension`, the reward comes as its terms, weight x logit, under `reward/<dimension>`. The question and the
    image are those of the row's metadata, or those of the conversation.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        settings = dict(settings)
        self._weights: dict[str, float] = {}
        if settings.pop("per_dimension", False):
            self._weights = dict(settings.get("weights") or {})
            if not self._weights:
                raise ValueError("per_dimension gives weight x logit of each dimension: give it weights")
        self._source = source_of(settings)
        self._pictures = Pictures()

    def step(self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]) -> Any:
        """Returns the rewards of a batch, after which each conversation is at its end."""
        self._pictures.start_batch()
        asked = [self._triple(log, about or {}) for log, about in zip(message_log_batch, metadata, strict=True)]
        rewards = self._source.rewards(asked)
        count = len(rewards)
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": ""}] * count,
            metadata=list(metadata),
            next_stop_strings=[None] * count,
            rewards=self._tensors(rewards),
            terminateds=torch.ones(count),
            answers=None,
        )

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """Returns the batch as it is, and how many rewards so far are a number that stands in for one."""
        return batch, {"medreward/filled": float(self._source.filled)}

    def shutdown(self) -> None:
        """Does nothing: the client ends with its process."""

    def _triple(self, log: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Triple | Score:
        last = max((i for i, message in enumerate(log) if message["role"] == "assistant"), default=None)
        if last is None:
            raise ValueError("the conversation has no turn of the assistant, so that there is nothing to score")
        prompt = [message for message in log[:last] if message["role"] in ("system", "user", "assistant")]
        question = about.get("question")
        images = listed(about.get("image")) or images_in(prompt)
        turns: tuple[Turn, ...] = ()
        if question is None:
            question = plain_question(question_in(prompt), "as `question` in the row's metadata")
            turns = turns_in(prompt, len(images))
        return one_triple(self._pictures, images, question, log[last]["content"], turns)

    def _tensors(self, rewards: Sequence[Reward]) -> Any:
        if not self._weights:
            return torch.tensor([reward.value for reward in rewards])
        # a number that stands in is the reward itself: in equal parts, so that the terms add up to it
        share = 1 / len(self._weights)
        return {
            f"reward/{dimension}": torch.tensor(
                [reward.value * share if reward.filled else weight * reward.logits[dimension] for reward in rewards]
            )
            for dimension, weight in self._weights.items()
        }


#: What `register_env` is told, by its full name. An actor that is lost is started again, and its call repeated.
MedRewardEnvironment = ray.remote(max_restarts=-1, max_task_retries=-1)(Environment)
