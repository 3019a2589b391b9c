"""ms-swift's own computation of rewards, with a plugin as it loads one."""

from base64 import b64decode
from typing import Any

import torch
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func

from trainers.answering import answer_calls

functions: list[Any] = []


def plug_in(plugin: str, names: list[str]) -> None:
    """Runs a plugin, and makes the reward functions that `--reward_funcs` names."""
    exec(plugin, {})  # noqa: S102  (a page of ours)
    functions[:] = [orms[name](args=None) for name in names]


def rewards(question: str, responses: list[str], image: str | None) -> list[list[float]]:
    images = [{"bytes": b64decode(image), "path": None}] if image else []
    tag = "<image>" if image else ""
    samples = [
        GRPOSample(
            messages=[{"role": "user", "content": tag + question}, {"role": "assistant", "content": response}],
            images=images,
            prompt_id="one",
        )
        for response in responses
    ]
    found: list[list[float]] = compute_rewards_per_func(samples, functions, None, torch.device("cpu")).tolist()
    return found


answer_calls({"plug_in": plug_in, "rewards": rewards})
