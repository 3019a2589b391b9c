"""A reward function for OpenRLHF, for those who prefer code to a URL; docs/trainers/openrlhf.md shows both."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from medreward.clients.calls import Triple
from medreward.clients.rewarding import RewardSource, SourceOptions
from medreward.clients.rows import after_prompt, of_label
from medreward.clients.sync import Client
from medreward.types import DIMENSIONS

RewardFunction = Callable[[Sequence[str], Sequence[str], Sequence[Any]], dict[str, Any]]


def make_reward_func(server: str | Client, **how: Unpack[SourceOptions]) -> RewardFunction:
    """Returns the `reward_func` of a file that `--reward.remote_url` names.

    The label of a prompt holds its `question` and its `image`, as a mapping or as JSON. Raises ValueError where it has
    no question.
    """
    source = RewardSource(server, **how)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        rewards = source.rewards([_triple(*given) for given in zip(queries, prompts, labels, strict=True)])
        logs = {dimension: [reward.logits[dimension] for reward in rewards] for dimension in DIMENSIONS}
        return {
            "rewards": [reward.value for reward in rewards],
            "scores": [reward.overall for reward in rewards],  # 0 to 1, which dynamic filtering goes by
            "extra_logs": {**logs, "filled": [float(reward.filled) for reward in rewards]},
        }

    return reward_func


def _triple(query: str, prompt: str, label: Any) -> Triple:
    image, question = of_label(label)
    if question is None:
        raise ValueError('the label has no question: write it as JSON, {"question": …, "image": …}, or use the URL')
    return Triple(image, question, after_prompt(query, prompt))
