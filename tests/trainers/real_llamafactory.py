"""LLaMA-Factory's own client. Its trainers import what is not installed here, so their packages are left empty."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

from trainers.answering import answer_calls

found = importlib.util.find_spec("llamafactory")
assert found
assert found.submodule_search_locations
for name in ("train", "train.ppo"):
    package: Any = ModuleType(f"llamafactory.{name}")
    package.__path__ = [f"{found.submodule_search_locations[0]}/{name.replace('.', '/')}"]
    sys.modules[package.__name__] = package

from llamafactory.train.ppo.ppo_utils import get_rewards_from_server  # noqa: E402  (after the packages above)


def rewards(url: str, messages: list[str]) -> list[float]:
    numbers: list[float] = get_rewards_from_server(url, messages).tolist()
    return numbers


answer_calls({"rewards": rewards})
