"""Trainers that no package index has: their calls as their sources make them, with the configuration of their pages."""

import asyncio
import importlib.util
import itertools
import json
import logging
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from commands import Served
from medreward.clients import NotScored
from medreward.types import DIMENSIONS
from trainers.children import (
    QUESTION,
    RESPONSES,
    chatml,
    counted,
    new_image,
    pasted,
    results,
    rewards,
    stored,
)

pytestmark = pytest.mark.slow

numbers = itertools.count()


def loaded(source: str, folder: Path) -> ModuleType:
    """A file of a page, loaded by its path."""
    path = folder / f"pasted_{next(numbers)}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# slime


def sample(response: str, **more: Any) -> SimpleNamespace:
    """What slime's rollout makes: one response, and what its data set knows of it."""
    asked: dict[str, Any] = {"prompt": [{"role": "user", "content": QUESTION}], "label": None, "metadata": {}}
    return SimpleNamespace(**asked | {"multimodal_inputs": None, "group_index": 0} | more, response=response)


async def remote_rm(args: SimpleNamespace, asked: SimpleNamespace) -> Any:
    """slime's way by URL: it tries ten times, whatever the error, and raises the last."""
    body = {"prompt": asked.prompt, "response": asked.response, "label": asked.label}
    async with httpx.AsyncClient(timeout=120) as client:
        for attempt in range(10):
            try:
                reply = await client.post(args.rm_url, json=body)
                reply.raise_for_status()
                return reply.json()
            except httpx.HTTPError:
                if attempt == 9:
                    raise
                await asyncio.sleep(0)
    raise AssertionError


@pytest.fixture
def slime(served: Served, tmp_path: Path) -> Any:
    return loaded(pasted("slime.md", "python", served), tmp_path)


@pytest.mark.parametrize("prompt", [[{"role": "user", "content": QUESTION}], chatml(QUESTION)])
async def test_slime_by_url(served: Served, prompt: Any) -> None:
    image = new_image(60)
    flags = pasted("slime.md", "", served).split()
    args = SimpleNamespace(rm_url=flags[flags.index("--rm-url") + 1], reward_key=flags[flags.index("--reward-key") + 1])
    label = stored(served, image)
    samples = [sample(response, label=label, prompt=prompt) for response in RESPONSES]
    found = await asyncio.gather(*(remote_rm(args, one) for one in samples))
    assert [one[args.reward_key] for one in found] == rewards(served, RESPONSES, image)


async def test_slime_by_a_group_sends_and_encodes_the_image_once(slime: Any, served: Served) -> None:
    image = new_image(61)
    picture = Image.open(BytesIO(image))
    metrics = ("medreward_image_encodes_total", 'medreward_requests_total{code="201",lane="bulk",route="/v1/images"}')
    before = [counted(served, metric) for metric in metrics]
    group = [sample(f"Finding {n}.", multimodal_inputs={"images": [picture]}) for n in range(8)]
    found = await slime.group_rm(SimpleNamespace(), group)
    assert [counted(served, metric) for metric in metrics] == [count + 1 for count in before]
    assert found == rewards(served, [one.response for one in group], image)


async def test_slime_by_single_samples_and_with_a_key(slime: Any, served: Served) -> None:
    args = SimpleNamespace(reward_key="reward")
    found = await slime.custom_rm(args, sample(RESPONSES[0], metadata={"question": QUESTION}, prompt=chatml("…")))
    (expected,) = results(served, RESPONSES[:1])
    assert found == {"reward": expected["reward"], **expected["logits"], "filled": 0.0}
    assert await slime.custom_rm(SimpleNamespace(), sample(RESPONSES[0])) == expected["reward"]


async def test_slime_is_told_where_the_question_must_stand(slime: Any) -> None:
    with pytest.raises(ValueError, match="as `question` in the metadata or in the label"):
        await slime.custom_rm(SimpleNamespace(), sample("Yes.", prompt=chatml(QUESTION)))


async def test_slime_stops_where_there_is_no_score(slime: Any) -> None:
    with pytest.raises(NotScored, match="image_unknown"):
        await slime.custom_rm(SimpleNamespace(), sample("Yes.", label="0" * 64))


# EasyR1


def easyr1(served: Served, folder: Path, **more: Any) -> Any:
    """The function as EasyR1's FunctionRewardManager loads it: a path, a name and arguments of its configuration."""
    config = yaml.safe_load(pasted("easyr1.md", "yaml", served))["worker"]["reward"]
    module = loaded(pasted("easyr1.md", "python", served), folder)
    assert module.REWARD_TYPE == "batch"
    function = getattr(module, config["reward_function"].split(":")[1])
    return lambda inputs: function(inputs, **config["reward_function_kwargs"] | more)


def inputs(truth: Any) -> list[dict[str, Any]]:
    return [{"response": text, "response_length": len(text), "ground_truth": truth} for text in RESPONSES]


def test_easyr1(served: Served, tmp_path: Path) -> None:
    image = new_image(62)
    (tmp_path / "scan.png").write_bytes(image)
    truth = json.dumps({"question": QUESTION, "image": str(tmp_path / "scan.png")})
    found = easyr1(served, tmp_path)(inputs(truth))
    assert found == [
        {"overall": result["reward"], "filled": 0.0}
        | {f"logit_{dimension}": result["logits"][dimension] for dimension in DIMENSIONS}
        for result in results(served, RESPONSES, image)
    ]
    assert easyr1(served, tmp_path)([]) == []


def test_easyr1_without_a_question_is_told_where_it_goes(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the ground truth has no question"):
        easyr1(served, tmp_path)(inputs("0" * 64))


def test_easyr1_with_weights_and_a_number(served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = {"accuracy": 2.0}
    function = easyr1(served, tmp_path, weights=weights, on_error=-1)
    good = function(inputs(json.dumps({"question": QUESTION})))
    assert [one["overall"] for one in good] == rewards(served, RESPONSES, weights=weights)
    with caplog.at_level(logging.WARNING, "medreward"):
        bad = function(inputs(json.dumps({"question": QUESTION, "image": str(tmp_path / "none.png")})))
    assert [(one["overall"], one["filled"]) for one in bad] == [(-1.0, 1.0)] * len(RESPONSES)
    assert "4 of 4 responses not scored: image_invalid 4; -1 stands in for their rewards (4 so far)" in caplog.text


# ROLL


def roll(served: Served, response: str, info: Any) -> float:
    """ROLL's worker: it submits, and asks for the result until it is there."""
    addresses = dict(line.split(": ") for line in pasted("roll.md", "", served).splitlines())
    submitted = {
        "priority": 0,
        "project_id": "p",
        "experiment_id": "e",
        "global_step": 1,
        "data_id": 1,
        "rollout_id": 2,
    }
    submitted |= {"prompt": chatml(QUESTION), "response": response, "reward_info": info, "timeout": 60}
    with httpx.Client(timeout=60) as client:
        ticket = client.post(addresses["submit"], json=submitted).raise_for_status().json()
        assert ticket["errcode"] == 0
        body = {"reward_request_id": ticket["reward_request_id"]}
        for _ in range(3000):
            result = client.request("GET", addresses["result"], json=body).raise_for_status().json()
            if result["errcode"] == 0:
                reward: float = result["reward_score"]
                return reward
    raise AssertionError("no result came")


def test_roll(served: Served) -> None:
    image = new_image(63)
    info = {"image": stored(served, image)}
    assert [roll(served, response, info) for response in RESPONSES] == rewards(served, RESPONSES, image)
