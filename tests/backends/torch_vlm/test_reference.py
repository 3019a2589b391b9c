"""`medreward doctor --parity`: passes what is exact, and says when it is not."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from backends.torch_vlm.checkpoints import value_head, write_checkpoint, write_manifest
from medreward.backends.torch_vlm.branching import Past
from medreward.backends.torch_vlm.reference import Compared, Orders, orders
from medreward.cli.doctor import command
from medreward.errors import ConfigurationError


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("MEDREWARD_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, "qwen2_5_vl")
    return folder


def doctor(folder: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    invoked = ["--parity", str(folder), "--json", *flags]
    done = CliRunner().invoke(command, invoked, standalone_mode=False, catch_exceptions=False)
    return done.return_value, json.loads(done.stdout)


def test_an_exact_model_passes(folder: Path) -> None:
    code, found = doctor(folder)
    assert (code, found["ok"]) == (0, True)
    assert len(found["differences"]) == 5
    assert 0 < found["largest"] <= found["tolerance"] == 1e-4
    assert (found["pair_orders"], found["pair_orders_that_flip"]) == (5 * 15 * 6, 0)


def test_a_model_of_few_tokens_is_compared_on_answers_that_fit(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    manifest = (copy / "model.toml").read_text()
    few = re.sub(r"max_tokens = \d+", "max_tokens = 64", manifest)
    assert few != manifest
    (copy / "model.toml").write_text(few)
    code, found = doctor(copy)
    assert (code, found["ok"]) == (0, True)
    assert 0 < found["largest"] <= found["tolerance"]
    (copy / "model.toml").write_text(re.sub(r"max_tokens = \d+", "max_tokens = 8", manifest))
    with pytest.raises(ConfigurationError, match="takes 8 tokens, too few for any question of ours"):
        doctor(copy)


def test_a_value_head_is_compared_on_its_one_dimension(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "reward_head.safetensors").unlink()
    save_file(value_head(), copy / "value_head.safetensors")
    write_manifest(copy, "qwen2_5_vl", 'head = "value_head.safetensors"', dimensions=["overall"])
    code, found = doctor(copy)
    assert (code, found["ok"]) == (0, True)
    assert 0 < found["largest"] <= found["tolerance"]


def test_a_model_that_sees_images_at_their_own_sizes_passes(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    own = 'fit = "own"\nmin_pixels = 784\nmax_pixels = 20000\nmultiple = 14'
    write_manifest(copy, "qwen2_5_vl", size=own)
    code, found = doctor(copy)
    assert (code, found["ok"]) == (0, True)
    assert found["differences"] != doctor(folder)[1]["differences"]


def test_in_bf16_a_difference_is_measured_by_the_spread_of_the_logits(folder: Path) -> None:
    code, found = doctor(folder, "--dtype", "bf16")
    assert (code, found["ok"], found["runtime"]) == (0, True, "torch_vlm/cpu/bf16")
    assert 1e-4 < found["largest"] <= found["tolerance"] == pytest.approx(found["spread"] / 2)
    assert found["pair_orders"] == 5 * 15 * 6
    assert found["share_that_flips"] == found["pair_orders_that_flip"] / (5 * 15 * 6) < 0.05


def test_the_table_says_how_many_pair_orders_flip(folder: Path) -> None:
    done = CliRunner().invoke(command, ["--parity", str(folder)], standalone_mode=False)
    assert re.search(r"pair orders that flip +0\b", done.stdout)


def test_equal_answers_have_no_order_and_a_tie_of_ours_is_another_one() -> None:
    plain = np.array([0.0, 1.0, 2.0, 2.0], np.float32).reshape(4, 1, 1)
    ours = np.array([0.5, 0.4, 2.0, 0.5], np.float32).reshape(4, 1, 1)
    assert orders([Compared(ours, plain)]) == Orders(pairs=5, flips=2)


def test_with_another_interpreter_its_own_logits_are_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_answers_see_each_other(monkeypatch)
    code, found = doctor(folder, "--worker-python", sys.executable)
    assert (code, found["runtime"]) == (0, "torch_vlm/cpu/fp32")
    assert 0 < found["largest"] <= found["tolerance"]


def let_answers_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def everybody(self: Past, layer: int, *new: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cat([state, n[0]], 1)[None] for state, n in zip(self._prefix.layers[layer], new, strict=True)]

    def nothing_hidden(self: Past, window: int | None, seen: int, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(self.own.stop - self.own.start, seen)

    monkeypatch.setattr(Past, "keys_and_values", everybody)
    monkeypatch.setattr(Past, "mask", nothing_hidden)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_answers_that_see_each_other_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    let_answers_see_each_other(monkeypatch)
    code, found = doctor(folder, "--dtype", dtype)
    assert (code, found["ok"]) == (1, False)
    assert found["largest"] > 0.01
    assert found["pair_orders_that_flip"] > 0
