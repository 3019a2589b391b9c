"""Experts on one base: each scores as it does by itself, whatever else is in its batch."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asking import post
from backends.torch_vlm import checkpoints
from cases import SCAN, Body, to_message
from lab.merging.experts import (
    ANSWER,
    PIXELS,
    PROMPT,
    levels_of,
    write_base,
    write_expert,
    write_tuned,
)
from medreward.api.rest.reply_shapes import ModelReply, ScoreReply
from medreward.artifacts.manifest import read_manifest
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.experts import ExpertsBackend
from medreward.clients import AsyncClient, Triple
from medreward.errors import ConfigurationError
from medreward.lab.merging.apart import put_together
from medreward.lab.merging.merge import Named
from medreward.settings import Settings
from medreward.workers.device.loading import open_backend
from serving import Server, running

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 still asks
TEXT = r".*language_model.*\.(q_proj|v_proj)"
OTHER = [*ANSWER[:1], *ANSWER[3:]]
EXPERTS: dict[str, dict[str, Any]] = {
    "chest": {"target_modules": TEXT},
    "brain": {
        "target_modules": TEXT,
        "r": 2,
        "use_rslora": True,
        "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 20},
    },
    "skin": {"use_dora": True},  # its vision tower learnt too
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    base = write_base(folder / "base")
    for seed, (name, lora) in enumerate(EXPERTS.items()):
        write_expert(base, folder / name, seed, levels_of(seed), **lora)
    named = [Named(folder / "chest", "chest,lung"), Named(folder / "brain", "brain"), Named(folder / "skin", "skin")]
    put_together(base, named, folder / "together", "together")
    return folder


@pytest.fixture(scope="module")
def together(made: Path) -> ExpertsBackend:
    folder = made / "together"
    backend = open_backend(Settings(device="cpu", threads=1), read_manifest(folder / "model.toml"), folder)
    assert isinstance(backend, ExpertsBackend)
    return backend


def group(expert: str, digest: str = "a") -> Group:
    return Group(ModelImage(digest, PIXELS), PROMPT, [ANSWER, OTHER], expert=expert)


@pytest.mark.parametrize("name", ["", *EXPERTS])
def test_an_expert_gives_what_it_gives_by_itself(made: Path, together: ExpertsBackend, name: str) -> None:
    alone = checkpoints.opened(made / (name or "base"))
    [expected] = alone.score([group("")])
    [found] = together.score([group(name)])
    assert np.abs(found - expected).max() <= 1e-5
    [text_alone] = together.score([replace(group(name), image=None, prompt=PROMPT[3:])])
    [expected] = alone.score([replace(group(""), image=None, prompt=PROMPT[3:])])
    assert np.abs(text_alone - expected).max() <= 1e-5


def test_a_mixed_batch_equals_separate_ones(together: ExpertsBackend) -> None:
    names = ["chest", "", "skin", "brain", "chest", "skin", ""]
    groups = [group(name, f"image {n}") for n, name in enumerate(names)]
    mixed = together.score(groups)
    together.release()
    for one, found in zip(groups, mixed, strict=True):
        [separate] = together.score([one])
        together.release()
        assert np.abs(found - separate).max() <= 1e-5
    for a in (0, 1, 2, 3):
        assert all(np.abs(mixed[a] - mixed[b]).max() > 0.01 for b in range(a))


def test_an_image_is_seen_once_for_all_whose_adapter_leaves_the_vision_tower(together: ExpertsBackend) -> None:
    together.release()
    together.take_counts()
    together.score([group(name) for name in ("chest", "", "brain")])
    counts = together.take_counts()
    assert (counts.image_encodes, counts.prefix_runs) == (1, 3)
    together.score([group("skin")])
    assert together.take_counts().image_encodes == 1  # it sees another image in it
    together.score([group(name) for name in ("skin", "chest", "", "brain")])
    counts = together.take_counts()
    assert (counts.image_encodes, counts.prefix_runs, counts.prefix_hits) == (0, 0, 4)


def test_memory_is_that_of_one_base_and_the_adapters(together: ExpertsBackend, made: Path) -> None:
    base = checkpoints.opened(made / "base").backbone.base
    own = sum(weight.numel() for weight in base.parameters())
    held = dict(together.base.named_parameters())
    whole = sum(weight.numel() for weight in held.values())
    adapters = sum(weight.numel() for name, weight in held.items() if ".lora_" in name)
    assert whole == own + adapters
    assert adapters < own / 4


@pytest.fixture(scope="module")
async def server(made: Path) -> AsyncIterator[Server]:
    async with running(model=str(made / "together"), device="cpu") as server:
        yield server


def asked(*departments: str) -> Body:
    return {
        "items": [
            {"image": SCAN, "question": "is there a fracture ?", "responses": ["yes", "no"], "department": department}
            for department in departments
        ]
    }


async def test_the_department_of_an_item_says_which_expert_scores_at_both_doors(made: Path, server: Server) -> None:
    body = asked("lung", "skin", "", "cardiology")
    reply = await post(server, body)
    ScoreReply.model_validate_json(reply.content)
    results = reply.json()["results"][::2]
    assert [result.get("expert") for result in results] == ["chest", "skin", None, None]
    assert results[2]["logits"] == results[3]["logits"]
    for message, result in zip((await server.stub.Score(to_message(body))).results[::2], results, strict=True):
        assert message.expert == result.get("expert", "")
        assert message.logits.overall == result["logits"]["overall"]
    for name, result in zip(("chest", "skin", "base"), results, strict=False):
        async with running(model=str(made / name), device="cpu") as alone:
            [by_itself, _] = (await post(alone, asked(""))).json()["results"]
        for kind in ("logits", "scores"):  # scores are those of the expert's own calibration
            assert result[kind] == pytest.approx(by_itself[kind], abs=1e-5)


async def test_a_kept_score_is_that_of_its_expert(server: Server) -> None:
    for department in ("chest", "brain"):
        body = asked(department)
        body["items"][0]["responses"] = ["a right lung"]
        first, again = [(await post(server, body)).json()["results"][0] for _ in range(2)]
        assert (first["cached"], again["cached"]) == (False, True)
        assert first["logits"] == again["logits"]


async def test_the_model_lists_its_experts(server: Server) -> None:
    about = ModelReply.model_validate_json((await server.rest.get("/v1/model")).content)
    assert about.experts == {"chest": ["chest", "lung"], "brain": ["brain"], "skin": ["skin"]}


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_the_client_names_a_department(server: Server, scheme: str) -> None:
    port = server.port if scheme == "http" else server.grpc_port
    async with AsyncClient(f"{scheme}://127.0.0.1:{port}") as client:
        [one] = await client.score(None, "is there a fracture ?", ["yes"], department="brain")
        triples = [
            Triple(None, "is there a fracture ?", "yes", department=department) for department in ("brain", "skin", "")
        ]
        many = await client.score_many(triples)
    assert [score.expert for score in (one, *many)] == ["brain", "brain", "skin", ""]
    assert one == many[0]
    assert len({score.reward for score in many}) == 3


async def test_a_label_of_a_trainer_names_the_department(server: Server) -> None:
    body = {"query": ["is there\nyes"] * 2, "prompts": ["is there\n"] * 2, "labels": [{"department": "skin"}, None]}
    first, second = (await server.rest.post("/get_reward", json=body)).json()["rewards"]
    assert first != second


@pytest.mark.parametrize(
    ("lora", "says"),
    [({"bias": "all"}, "cannot share its base"), ({"modules_to_save": ["linear_2"]}, "cannot share its base")],
)
def test_an_expert_that_cannot_be_taken_off_again_is_refused(
    made: Path, tmp_path: Path, lora: dict[str, Any], says: str
) -> None:
    write_expert(made / "base", tmp_path / "expert", 1, **lora)
    with pytest.raises(ConfigurationError, match=says):
        put_together(made / "base", [Named(tmp_path / "expert", "chest")], tmp_path / "out", "out")
    assert not (tmp_path / "out").exists()


def test_a_whole_checkpoint_and_an_expert_without_a_department_are_refused(made: Path, tmp_path: Path) -> None:
    write_tuned(made / "base", tmp_path / "tuned", 1)
    with pytest.raises(ConfigurationError, match="cannot share its base"):
        put_together(made / "base", [Named(tmp_path / "tuned", "chest")], tmp_path / "out", "out")
    with pytest.raises(ConfigurationError, match="name the department"):
        put_together(made / "base", [Named(made / "chest")], tmp_path / "out", "out")
    named = [Named(made / "chest", "chest,lung"), Named(made / "brain", "brain,lung")]
    with pytest.raises(ConfigurationError, match="two experts are for department lung"):
        put_together(made / "base", named, tmp_path / "out", "out")
    assert not (tmp_path / "out").exists()


def test_an_expert_damaged_on_its_way_stops_the_start(made: Path, tmp_path: Path) -> None:
    write_expert(made / "base", tmp_path / "expert", 1, target_modules=TEXT)
    out = tmp_path / "out"
    put_together(made / "base", [Named(tmp_path / "expert", "chest")], out, "out")
    config = out / "chest.adapter_config.json"
    config.write_text(config.read_text().replace('"none"', '"all"'))
    with pytest.raises(ConfigurationError, match="more than a LoRA"):
        open_backend(Settings(device="cpu", threads=1), read_manifest(out / "model.toml"), out)
