"""EasyR1's reward function for whole batches; docs/trainers/easyr1.md shows how to use it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from medreward.clients.calls import Triple
from medreward.clients.rewarding import RewardSource, source_of
from medreward.clients.rows import of_label, without_end_mark

REWARD_NAME: Final = "medreward"
REWARD_TYPE: Final = "batch"  # EasyR1 reads it and hands over the whole batch


def compute_score(reward_inputs: Sequence[Mapping[str, Any]], **settings: Any) -> list[dict[str, float]]:
    """Returns for each input `overall`, which is the reward that EasyR1 trains on, and what it logs beside it.

    The settings are `worker.reward.reward_function_kwargs`: `url`, and beside it `weights`, `on_error` and Client's
    options. An input's `ground_truth` is JSON of `question` and `image`. Raises ValueError where it has no question.
    """
    source = _source(tuple(sorted((name, _frozen(setting)) for name, setting in settings.items())))
    rewards = source.rewards([_triple(given) for given in reward_inputs])
    # the dimension `overall` is not EasyR1's: all six have a name of their own
    return [
        {"overall": reward.value, "filled": float(reward.filled)}
        | {f"logit_{dimension}": logit for dimension, logit in reward.logits.items()}
        for reward in rewards
    ]


def _triple(given: Mapping[str, Any]) -> Triple:
    image, question = of_label(given["ground_truth"])
    if question is None:
        raise ValueError('the ground truth has no question: write it as JSON, {"question": …, "image": …}')
    return Triple(image, question, without_end_mark(given["response"]))


@cache
def _source(settings: tuple[tuple[str, Any], ...]) -> RewardSource:
    return source_of({name: dict(value) if isinstance(value, tuple) else value for name, value in settings})


def _frozen(setting: Any) -> Any:
    return tuple(sorted(setting.items())) if isinstance(setting, Mapping) else setting
