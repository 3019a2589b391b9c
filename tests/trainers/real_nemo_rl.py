"""NeMo-RL's environment, its interface a double: what nemo_rl.environments.interfaces has, as NeMo-RL's sources say."""

import abc
import sys
from base64 import b64decode
from types import ModuleType
from typing import Any, NamedTuple

from trainers.answering import answer_calls


class EnvironmentReturn(NamedTuple):
    observations: list[dict[str, str]]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: Any
    terminateds: Any
    answers: list[str | None] | None = None


class EnvironmentInterface(abc.ABC):
    @abc.abstractmethod
    def step(self, message_log_batch: Any, metadata: Any) -> EnvironmentReturn: ...

    @abc.abstractmethod
    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, Any]]: ...


for name in ("nemo_rl", "nemo_rl.environments"):
    sys.modules.setdefault(name, ModuleType(name))
interfaces: Any = ModuleType("nemo_rl.environments.interfaces")
interfaces.EnvironmentReturn, interfaces.EnvironmentInterface = EnvironmentReturn, EnvironmentInterface
sys.modules[interfaces.__name__] = interfaces

from medreward.clients import nemo_rl  # noqa: E402  (its interface stands above)


def step(settings: dict[str, Any], logs: list[Any], metadata: list[Any]) -> dict[str, Any]:
    environment = nemo_rl.Environment(settings)
    for about in metadata:
        if about and about.get("image"):
            about["image"] = b64decode(about["image"])
    found = environment.step(logs, metadata)
    rewards = found.rewards
    listed = {key: row.tolist() for key, row in rewards.items()} if isinstance(rewards, dict) else rewards.tolist()
    _, metrics = environment.global_post_process_and_metrics({})
    return {"rewards": listed, "terminateds": found.terminateds.tolist(), "metrics": metrics}


def is_an_actor() -> bool:
    """Whether Ray can make actors of what `register_env` is told."""
    return hasattr(nemo_rl.MedRewardEnvironment, "options") and hasattr(nemo_rl.MedRewardEnvironment, "remote")


answer_calls({"step": step, "is_an_actor": is_an_actor})
