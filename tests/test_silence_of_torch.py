"""The same of the processes that import torch: a worker with its ranks, training, and a TRL trainer with our reward."""

import sys
from pathlib import Path

import httpx
import pytest

import pictures
from backends.torch_vlm.checkpoints import write_checkpoint
from cases import b64
from commands import serving
from lab.training.shapes import write_data, write_encoder
from lab.training.test_commands import write_recipe
from traced import Room

TRL_RUN = Path(__file__).parent / "clients" / "trl_run.py"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "room")


@pytest.mark.slow
def test_serve_a_vision_language_model_over_two_processes(room: Room, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "vlm", "qwen2_5_vl")
    flags = ["--device", "cpu", "--threads", "1", "--tensor-parallel", "2"]
    with room.serving("--model", tmp_path / "vlm", *flags) as ports:
        item = {"image": b64(pictures.png(1)), "question": "is there a fracture ?", "responses": ["yes", "no"]}
        url = f"http://127.0.0.1:{ports['port']}/v1/score"
        answered = httpx.post(url, json={"items": [item]}, timeout=120)
    assert [result["status"] for result in answered.json()["results"]] == ["ok"] * 2
    room.assert_silent()


def test_doctor(room: Room) -> None:
    assert "onnxruntime providers" in room.medreward("doctor")
    room.assert_silent()


@pytest.mark.slow
def test_train(room: Room) -> None:
    write_data(room.work / "data")
    write_encoder(room.work / "encoder")
    recipe = write_recipe(room.work / "encoder", room.work / "recipe.toml")
    room.medreward("train", "--recipe", recipe, "--data", "data", "--out", "trained")
    assert (room.work / "trained" / "checkpoint.pt").exists()
    room.assert_silent()


@pytest.mark.slow
def test_a_trl_trainer_with_our_reward(room: Room, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        path = str(TRL_RUN.parents[1] / "support")
        done = room.run(sys.executable, TRL_RUN, server.url, "trained", "--steps", "2", PYTHONPATH=path)
    assert done.returncode == 0, done
    assert "step 2" in done.stdout
    room.assert_silent()
