"""LoRA adapters beside their base: what peft itself gives, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from backends.torch_vlm import checkpoints
from backends.torch_vlm.checkpoints import HEAD, SIDE, TOKENS, Plain, write_checkpoint, write_manifest
from medreward.backends.base import Group, ModelImage
from medreward.backends.torch_vlm.backend import TorchVlmBackend
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft 0.21 still asks
FAMILY = "llava"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PIXELS = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
PROMPT = [TOKENS[word] for word in ("<s>", "<user>", "<image>", "is", "there", "a", "fracture", "?")]
ANSWER = [TOKENS[word] for word in ("<assistant>", "yes", ",", "a", "small", "fracture", "</s>")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    write_checkpoint(folder, FAMILY)
    adapt(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def adapt(folder: Path, **lora: Any) -> Any:
    """Writes an adapter whose weights all do something."""
    base = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        targets = {"target_modules": ["q_proj", "v_proj", "linear_1"], "r": 4, "lora_alpha": 12, **lora}
        adapted = get_peft_model(base, LoraConfig(**targets, init_lora_weights=False))
    adapted.save_pretrained(folder)
    change_config(folder, base_model_name_or_path="somewhere/else")
    return adapted.eval()


def change_config(folder: Path, **values: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def opened(folder: Path, heads: str = HEAD, dimensions: Sequence[str] = DIMENSIONS) -> TorchVlmBackend:
    write_manifest(folder, FAMILY, heads, dimensions=dimensions)
    return checkpoints.opened(folder)


def test_a_merged_adapter_gives_what_pefts_own_forward_gives(folder: Path) -> None:
    for name in (CONFIG, WEIGHTS):
        (folder / name).unlink()
    plain = Plain(folder, FAMILY)
    group = Group(ModelImage("a", PIXELS), PROMPT, [ANSWER])
    [without] = opened(folder).score([group])
    plain.model = adapt(folder).base_model.model.model
    [found] = opened(folder).score([group])
    assert np.abs(found[0] - plain.logits(PIXELS, PROMPT, ANSWER).numpy()).max() <= 1e-5
    assert np.abs(found - without).max() > 0.01


def test_the_base_is_the_one_in_the_folder_and_a_missing_one_is_not_looked_for(folder: Path) -> None:
    other = folder.parent / "other"
    write_checkpoint(other, FAMILY, seed=1)
    change_config(folder, base_model_name_or_path=str(other))
    named = opened(folder).backbone.base.get_input_embeddings().weight
    own = transformers.AutoModelForImageTextToText.from_pretrained(other).get_input_embeddings().weight
    assert not torch.equal(named, own)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="cannot load"):
        opened(folder)


def test_an_adapter_of_another_rank_is_refused(folder: Path) -> None:
    change_config(folder, r=8)
    with pytest.raises(ConfigurationError, match="size mismatch"):
        opened(folder)


@pytest.mark.parametrize("targets", [["nowhere"], ["q_proj", "v_proj"]])
def test_an_adapter_for_modules_that_are_not_there_is_refused(folder: Path, targets: list[str]) -> None:
    change_config(folder, target_modules=targets)
    with pytest.raises(ConfigurationError, match=r"nowhere|no module takes: .*linear_1"):
        opened(folder)


def test_an_adapter_that_lacks_weights_is_refused(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(min(weights))
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"has no .*lora_A"):
        opened(folder)


def with_head(folder: Path, rows: int) -> tuple[Any, torch.nn.Linear]:
    """What peft saves of a classifier: its head was trained whole, beside the adapter."""
    for name in (CONFIG, WEIGHTS):
        (folder / name).unlink()
    base = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    base.score = torch.nn.Linear(base.config.get_text_config().hidden_size, rows, bias=False)
    lora = LoraConfig(
        target_modules=["q_proj", "v_proj", "linear_1"], r=4, init_lora_weights=False, modules_to_save=["score"]
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        adapted = get_peft_model(base, lora)
        head = adapted.base_model.model.score.modules_to_save["default"]
        torch.nn.init.normal_(head.weight)
    adapted.save_pretrained(folder)
    return adapted.eval().base_model.model.model, head


@pytest.mark.parametrize("rows", [6, 1])
def test_a_head_that_was_trained_with_the_adapter_is_the_models_head(folder: Path, rows: int) -> None:
    plain = Plain(folder, FAMILY)
    (folder / "reward_head.safetensors").unlink()
    plain.model, head = with_head(folder, rows)
    backend = opened(folder, f'head = "{WEIGHTS}"', DIMENSIONS[-rows:])
    [found] = backend.score([Group(ModelImage("a", PIXELS), PROMPT, [ANSWER])])
    assert found.shape == (1, 1, rows)
    with torch.inference_mode():
        wanted = head(plain.state(PIXELS, PROMPT, ANSWER))
    assert np.abs(found[0, 0] - wanted.numpy()).max() <= 1e-4


def test_a_head_within_the_adapter_and_another_beside_it_are_one_too_many(folder: Path) -> None:
    with_head(folder, 6)
    with pytest.raises(ConfigurationError, match="has a head of its own"):
        opened(folder)


def test_a_pickled_adapter_is_refused(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ConfigurationError, match="has no adapter_model"):
        opened(folder)


def test_an_adapter_that_is_no_lora_is_refused(folder: Path) -> None:
    change_config(folder, peft_type="IA3")
    with pytest.raises(ConfigurationError, match="only LoRA"):
        opened(folder)
