"""verl's own worker for rewards, without a policy: its tokenizers are one of bytes, which is no part of the matter."""

import asyncio
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from PIL import Image
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopManager, RewardLoopWorker
from verl.trainer.ppo.reward import load_reward_manager

from trainers.answering import answer_calls
from trainers.children import chatml

DEFAULTS = Path(verl.__file__).parent / "trainer" / "config"
LENGTH = 256


class Bytes:
    bos_token = None
    eos_token = "<|im_end|>"  # noqa: S105  (no password)

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        text: list[int] = ids.tolist()
        return bytes(text).decode()

    def apply_chat_template(self, chat: list[dict[str, Any]], **_: Any) -> str:
        asked, answered = chat[-2:]
        return chatml(asked["content"], answered["content"])


def config_of(lines: list[str]) -> Any:
    """verl's own configuration with these arguments of its command line."""
    with initialize_config_dir(str(DEFAULTS), version_base=None):
        return compose("ppo_trainer", overrides=lines)


def worker_of(lines: list[str], address: str | None = None) -> RewardLoopWorker:
    worker = RewardLoopWorker.__new__(RewardLoopWorker)
    worker.config = config_of(lines)
    worker.reward_router_address = address
    worker.input_tokenizer = worker.reward_model_tokenizer = Bytes()
    return worker


def batch_of(rows: list[dict[str, Any]], folder: str) -> DataProto:
    prompts = np.empty(len(rows), dtype=object)
    ids = torch.zeros((len(rows), LENGTH), dtype=torch.int64)
    mask = torch.zeros((len(rows), 1 + LENGTH), dtype=torch.int64)
    for i, row in enumerate(rows):
        content: Any = row["question"]
        if row.get("image"):
            content = [picture(row["image"], row["kind"], f"{folder}/{i}.png"), {"type": "text", "text": content}]
        prompts[i] = [{"role": "user", "content": content}]
        written = list(row["response"].encode())
        ids[i, : len(written)] = torch.tensor(written, dtype=torch.int64)
        mask[i, : 1 + len(written)] = 1
    first = torch.zeros((len(rows), 1), dtype=torch.int64)
    tensors = TensorDict({"prompts": first, "responses": ids, "attention_mask": mask}, batch_size=len(rows))
    return DataProto(batch=tensors, non_tensor_batch={"raw_prompt": prompts})


def picture(encoded: str, kind: str, path: str) -> dict[str, Any]:
    """The part of a message, as verl's data set makes it."""
    data = b64decode(encoded)
    match kind:
        case "bytes":
            return {"type": "image", "bytes": data, "image": Image.open(BytesIO(data))}
        case "pil":
            return {"type": "image", "image": Image.open(BytesIO(data)).convert("RGB")}
        case _:
            with open(path, "wb") as file:  # noqa: PTH123  (nothing of ours is needed here)
                file.write(data)
            return {"type": "image", "image": path}


def manager(lines: list[str], rows: list[dict[str, Any]], folder: str) -> dict[str, Any]:
    """The answers of the configured manager, and the tensors that verl makes of them."""

    async def run() -> Any:
        worker = worker_of(lines)
        worker.reward_manager = load_reward_manager(worker.config, Bytes())
        data = batch_of(rows, folder)
        return data, worker.reward_manager, await worker.compute_score_batch(data)

    data, manager, answers = asyncio.run(run())
    tensor = type(manager).assemble_rm_scores(data, [answer["reward_score"] for answer in answers])
    return {"answers": answers, "sums": tensor.sum(dim=1).tolist()}


def disrm(lines: list[str], address: str, rows: list[dict[str, Any]]) -> list[float]:
    """What verl asks of the server that stands in for its reward model."""

    async def run() -> Any:
        worker = worker_of(lines, address)
        return await worker.compute_score_batch(batch_of(rows, ""))

    return [answer["reward_score"] for answer in asyncio.run(run())]


def gdpo(lines: list[str], answers: list[dict[str, Any]]) -> list[float]:
    """The advantages that verl makes of the answers' keys."""
    from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage

    config = config_of(lines).algorithm
    count = len(answers)
    extra = {key: np.array([answer["reward_extra_info"][key] for answer in answers]) for key in config.gdpo_reward_keys}
    ones = torch.ones((count, 2), dtype=torch.int64)
    batch = {"prompts": ones[:, :1], "attention_mask": ones}
    advantages, _ = compute_gdpo_outcome_advantage(
        torch.zeros((count, 1)),
        torch.ones((count, 1)),
        np.zeros(count),
        config=config,
        non_tensor_batch=extra,
        batch=batch,
    )
    numbers: list[float] = advantages[:, 0].tolist()
    return numbers


assert RewardLoopManager  # the class whose workers these are
answer_calls({"manager": manager, "disrm": disrm, "gdpo": gdpo})
