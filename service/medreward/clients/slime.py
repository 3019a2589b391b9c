"""Reward functions for slime, for those who prefer code to a URL; docs/trainers/slime.md shows both."""

from collections.abc import Sequence
from typing import Any, Unpack

from medreward.clients.calls import Triple
from medreward.clients.rewarding import Reward, RewardSource, SourceOptions
from medreward.clients.rows import Pictures, images_in, listed, of_label, one_triple, plain_question, turns_in
from medreward.clients.score import Score
from medreward.clients.sync import Client
from medreward.types import Turn


class Rewards:
    """Has the functions for slime's `--custom-rm-path`: `custom_rm`, and `group_rm` for use with `--group-rm`.

    The image is that of the sample's `multimodal_inputs`, its conversation or its label; the question is its
    metadata's or its label's `question`, or its conversation's last user turn.
    """

    def __init__(self, server: str | Client, **how: Unpack[SourceOptions]) -> None:
        self._source = RewardSource(server, **how)
        self._pictures = Pictures()

    async def custom_rm(self, args: Any, sample: Any, **_: Any) -> float | dict[str, float]:
        """Returns the reward of one sample; with slime's `--reward-key`, a dictionary that has `reward` and the six."""
        return (await self.group_rm(args, [sample]))[0]

    async def group_rm(self, args: Any, samples: Sequence[Any], **_: Any) -> list[float | dict[str, float]]:
        """Returns the rewards of the samples of a group, in order, of one call to the server."""
        self._pictures.start_batch()
        rewards = await self._source.rewards_async([self._triple(sample) for sample in samples])
        return [_named(reward) if getattr(args, "reward_key", None) else reward.value for reward in rewards]

    def _triple(self, sample: Any) -> Triple | Score:
        metadata = sample.metadata if isinstance(sample.metadata, dict) else {}
        labelled, question = of_label(sample.label)
        images = listed((sample.multimodal_inputs or {}).get("images")) or images_in(sample.prompt)
        images = images or listed(metadata.get("image")) or listed(labelled)
        question = metadata.get("question") or question
        turns: tuple[Turn, ...] = ()
        if question is None:
            question = plain_question(sample.prompt, "as `question` in the metadata or in the label")
            turns = turns_in(sample.prompt, len(images))
        return one_triple(self._pictures, images, question, sample.response, turns)


def _named(reward: Reward) -> dict[str, float]:
    return {"reward": reward.value, **reward.logits, "filled": float(reward.filled)}
