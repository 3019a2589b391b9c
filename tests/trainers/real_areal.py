"""AReaL's own wrapper of a reward function, whose processes are spawned: they begin with nothing."""

import asyncio
import importlib
import multiprocessing
from base64 import b64decode
from typing import Any

from trainers.answering import answer_calls


def rewards(module: str, question: str, responses: list[str], image: str | None) -> list[float]:
    function = importlib.import_module(module).reward_fn
    row: dict[str, Any] = {"images": [b64decode(image)] if image else [], "question": question, "messages": "…"}

    async def run() -> list[float]:
        wrapper = AsyncRewardWrapper(function, max_workers=2)
        return [*await asyncio.gather(*(wrapper("…", f"{text}<|im_end|>", [1], [2], **row) for text in responses))]

    return asyncio.run(run())


if __name__ == "__main__":  # its processes import this file
    from areal.api.reward_api import AsyncRewardWrapper

    multiprocessing.set_start_method("spawn")
    answer_calls({"rewards": rewards})
