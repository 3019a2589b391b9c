"""A prompt of 16,384 tokens: it is admitted at what it costs the device, and a deadline leaves nothing of it behind."""

import base64
from collections.abc import AsyncIterator
from functools import wraps
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from transformers import LlamaModel

import pictures
from backends.torch_vlm.checkpoints import FAMILIES, SIDE, WORDS, write_checkpoint, write_manifest
from medreward.engine.queue.flights import Flight
from medreward.engine.queue.scheduler import Scheduler
from serving import Server, running
from waiting import until

PROMPT, REPLY = 16_384, "no"
BEGIN, ANSWER = 3, 3  # tokens of the template: <s> <user> <image> and <assistant> no </s>


def long_item(seed: int, tokens: int = PROMPT) -> dict[str, Any]:
    """A new prompt of so many tokens, about an image."""
    words = WORDS.split()
    question = " ".join(words[(seed + place) % len(words)] for place in range(tokens - BEGIN))
    image = base64.b64encode(pictures.png(seed, SIDE, SIDE)).decode()
    return {"image": image, "question": question, "response": REPLY}


@pytest.fixture
async def vlm(tmp_path: Path) -> AsyncIterator[Server]:
    write_checkpoint(tmp_path, "llava")
    write_manifest(tmp_path, "llava", max_tokens=20_480)
    threads = torch.get_num_threads()
    async with running(model=str(tmp_path), device="cpu", threads=1) as server:
        yield server
    torch.set_num_threads(threads)


async def test_a_long_prompt_is_admitted_at_its_cost_and_ends_with_its_deadline(
    vlm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit, forward = Scheduler.admit, LlamaModel.forward
    costs: list[int] = []
    ran: list[int] = []
    may_go_on = Event()

    def watched(self: Scheduler[Flight], cost: int, *rest: Any) -> None:
        admit(self, cost, *rest)
        costs.append(cost)

    @wraps(forward)
    def counted(self: LlamaModel, *args: Any, **given: Any) -> Any:
        ids = given.get("input_ids")
        ran.append((given["inputs_embeds"] if ids is None else ids).shape[1])
        if len(ran) == 4:
            assert may_go_on.wait(300)  # so that the deadline passes between two blocks, however fast the machine is
        return forward(self, *args, **given)

    monkeypatch.setattr(Scheduler, "admit", watched)
    monkeypatch.setattr(LlamaModel, "forward", counted)
    late = await vlm.rest.post("/score", json=long_item(1), headers={"x-deadline-ms": "5000"}, timeout=60)
    assert (late.status_code, late.json()["code"]) == (504, "deadline")
    assert 0 < sum(ran) < PROMPT  # it is on the device
    state = vlm.engine.state()
    assert (state["requests_in_flight"], state["request_bytes"], state["pixels_admitted"]) == (0, 0, 0)
    may_go_on.set()
    await until(lambda: vlm.engine.state()["triples_in_flight"] == 0)
    assert vlm.engine.state()["cost_admitted"] == 0

    tokens = PROMPT - 1 + FAMILIES["llava"].image_tokens + ANSWER
    assert (costs, sum(ran), max(ran)) == ([tokens + 1], tokens, 1024)  # the placeholder counts too
    refused = await vlm.rest.post("/score", json=long_item(2), headers={"x-deadline-ms": "100"})
    assert (refused.status_code, refused.json()["code"]) == (504, "deadline")
    assert sum(ran) == tokens  # what takes longer is known by now, and never reaches the device
    assert vlm.engine.state()["cost_admitted"] == 0
    fine = await vlm.rest.post("/score", json=long_item(3, 2048), timeout=60)
    assert fine.json()["results"][0]["status"] == "ok"
    assert costs[-1] == sum(ran) - tokens + 1 == 2048 + FAMILIES["llava"].image_tokens + ANSWER
