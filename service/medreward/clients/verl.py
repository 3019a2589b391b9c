"""verl's reward manager; docs/trainers/verl.md shows how to use it. verl imports this file by its name."""

from typing import Any

from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from medreward.clients.calls import Triple
from medreward.clients.rewarding import source_of
from medreward.clients.rows import Pictures, images_in, one_triple, plain_question, shows_image, turns_in
from medreward.clients.score import Score
from medreward.types import DIMENSIONS


class MedRewardManager(RewardManagerBase):
    """Scores each answer as soon as verl has it, with its image and its question.

    Its settings are `reward.reward_kwargs`: `url`, and beside it `weights`, `on_error` and Client's options. The extra
    information of each answer has the same keys: the six dimensions' logits, for GDPO, and `filled`.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        from omegaconf import OmegaConf

        self._source = source_of(OmegaConf.to_container(config.reward.get("reward_kwargs") or OmegaConf.create()))
        self._pictures = Pictures()

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Returns the reward of the last sequence. Raises NotScored, Refused or VersionChanged as `on_error` says."""
        (reward,) = await self._source.rewards_async([self._triple(data[-1:][0])])
        logits = {dimension: reward.logits[dimension] for dimension in DIMENSIONS}
        return {"reward_score": reward.value, "reward_extra_info": {**logits, "filled": float(reward.filled)}}

    def _triple(self, row: Any) -> Triple | Score:
        response_ids = row.batch["responses"]
        length = int(row.batch["attention_mask"][-response_ids.shape[-1] :].sum())
        response = self.tokenizer.decode(response_ids[:length], skip_special_tokens=True)
        prompt = row.non_tensor_batch["raw_prompt"]
        prompt = prompt if isinstance(prompt, str) else list(prompt)  # verl keeps messages in an array
        images = images_in(prompt)
        if shows_image(prompt) and not images:
            raise ValueError("the prompt shows an image, but its message part holds none")
        self._pictures.start_batch()
        question = plain_question(prompt, "to verl as messages")
        return one_triple(self._pictures, images, question, response, turns_in(prompt, len(images)))
