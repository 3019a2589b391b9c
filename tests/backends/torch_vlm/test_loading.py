"""Which heads a checkpoint may have, and what is refused before a single score."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backends.torch_vlm import checkpoints
from backends.torch_vlm.checkpoints import (
    SIDE,
    TOKENS,
    Plain,
    linear_head,
    tokenizer,
    value_head,
    write_checkpoint,
    write_manifest,
)
from medreward.backends.base import Group, Logits, ModelImage
from medreward.backends.torch_vlm.backend import TorchVlmBackend
from medreward.backends.torch_vlm.verbaliser import RUBRICS
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS

FAMILY = "llava"
HEAD, VALUE_HEAD = "reward_head.safetensors", "value_head.safetensors"
VERBALISER = """
[vlm.verbaliser]
ask = ["<user>", "{rubric}", "<assistant>"]
yes = "yes"
no = "no"
"""
PIXELS = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
PROMPT = [TOKENS[word] for word in ("<s>", "<user>", "<image>", "is", "there", "a", "fracture", "?")]
ANSWER = [TOKENS[word] for word in ("<assistant>", "yes", ",", "a", "small", "fracture", "</s>")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(FAMILY)
    write_checkpoint(folder, FAMILY)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def opened(
    folder: Path,
    heads: str = f'head = "{HEAD}"',
    image: Sequence[str] = ("<image>",),
    dimensions: Sequence[str] = DIMENSIONS,
) -> TorchVlmBackend:
    write_manifest(folder, FAMILY, heads, image, dimensions)
    return checkpoints.opened(folder)


def logits(folder: Path, heads: str = f'head = "{HEAD}"') -> Logits:
    [group] = opened(folder, heads).score([Group(ModelImage("a", PIXELS), PROMPT, [ANSWER])])
    return group.reshape(-1, 6)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], None], file: str = "model.safetensors") -> None:
    weights = load_file(folder / file)
    change(weights)
    save_file(weights, folder / file, {"format": "pt"})


def ending(weights: dict[str, Tensor], name: str) -> str:
    return next(key for key in weights if key.endswith(name))


def test_an_ensemble_of_two_layer_heads(folder: Path) -> None:
    torch.manual_seed(0)
    heads = [nn.Sequential(nn.Linear(64, 10), nn.SiLU(), nn.Linear(10, 6)) for _ in range(3)]
    stacked = {
        f"{ours}{kind}": torch.stack([getattr(head[layer], kind).data for head in heads])
        for ours, layer in (("inner.", 0), ("", 2))
        for kind in ("weight", "bias")
    }
    save_file(stacked, folder / HEAD)
    state = Plain(folder, FAMILY).state(PIXELS, PROMPT, ANSWER)
    with torch.inference_mode():
        expected = torch.stack([head(state) for head in heads]).numpy()
    assert np.abs(logits(folder) - expected).max() <= 1e-4


def test_the_head_of_a_sequence_classifier_with_six_labels(folder: Path) -> None:
    state = Plain(folder, FAMILY).state(PIXELS, PROMPT, ANSWER)
    score = torch.randn(6, 64)

    def becomes_a_classifier(weights: dict[str, Tensor]) -> None:
        del weights[ending(weights, "lm_head.weight")]
        weights["score.weight"] = score

    change_weights(folder, becomes_a_classifier)
    change_config(folder, architectures=["LlavaForSequenceClassification"])
    (folder / HEAD).unlink()
    assert np.abs(logits(folder, 'head = "model.safetensors"') - (score @ state).numpy()).max() <= 1e-4


@pytest.mark.parametrize("prefix", ["v_head.summary.", "summary."])
def test_a_value_head_gives_its_one_number_at_the_last_token(folder: Path, prefix: str) -> None:
    head = value_head(prefix)
    save_file(head, folder / VALUE_HEAD)
    (folder / HEAD).unlink()
    found = opened(folder, f'head = "{VALUE_HEAD}"', dimensions=["overall"])
    longer = [*ANSWER[:-1], 20, 21, 22]
    [group] = found.score([Group(ModelImage("a", PIXELS), PROMPT, [ANSWER, longer])])
    plain = Plain(folder, FAMILY, heads=False)
    for answer, row in zip((ANSWER, longer), group, strict=True):
        expected = head[f"{prefix}weight"] @ plain.state(PIXELS, PROMPT, answer) + head[f"{prefix}bias"]
        assert row.shape == (1, 1)
        assert abs(float(row[0, 0]) - float(expected)) <= 1e-4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda head: head.pop("v_head.summary.bias"), r"it has v_head\.summary\.weight$"),
        (lambda head: head.pop("v_head.summary.weight"), r"it has v_head\.summary\.bias$"),
        (lambda head: head.update({"v_head.norm.weight": torch.ones(64)}), r"it has v_head\.norm\.weight, v_head\.sum"),
        (lambda head: head.update({"v_head.summary.weight": torch.zeros(1, 63)}), r"is \[1, 1, 63\], and must be"),
        (lambda head: head.update({"v_head.summary.weight": torch.zeros(2, 64)}), r"is \[1, 2, 64\], and must be"),
    ],
)
def test_a_value_head_of_another_layout_is_refused(folder: Path, change: Callable[[Any], Any], says: str) -> None:
    head = value_head()
    change(head)
    save_file(head, folder / VALUE_HEAD)
    with pytest.raises(ConfigurationError, match=says):
        opened(folder, f'head = "{VALUE_HEAD}"', dimensions=["overall"])


def test_a_verbaliser_asks_only_for_the_dimensions_of_the_manifest(folder: Path) -> None:
    (folder / HEAD).unlink()
    six = logits(folder, VERBALISER)[0]
    some = opened(folder, VERBALISER, dimensions=["relevance", "overall"])
    [two] = some.score([Group(ModelImage("a", PIXELS), PROMPT, [ANSWER])])
    assert np.abs(two[0, 0] - six[[1, 5]]).max() <= 1e-5


def test_a_checkpoint_without_heads_is_asked_a_question_for_each_dimension(folder: Path) -> None:
    (folder / HEAD).unlink()
    found = opened(folder, VERBALISER)
    answers = [ANSWER, [*ANSWER[:-1], 20, 21, 22], ANSWER[:2]]
    [group] = found.score([Group(ModelImage("a", PIXELS), PROMPT, answers)])
    plain = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    says = plain.lm_head.weight.detach()
    states = Plain(folder, FAMILY, heads=False)
    for answer, row in zip(answers, group, strict=True):
        for dimension, logit in zip(DIMENSIONS, row[0], strict=True):
            asked = tokenizer().encode(f"{RUBRICS[dimension]} Reply with yes or no.", add_special_tokens=False).ids
            state = states.state(PIXELS, PROMPT, [*answer, TOKENS["<user>"], *asked, TOKENS["<assistant>"]])
            expected = says[TOKENS["yes"]] @ state - says[TOKENS["no"]] @ state
            assert abs(logit - float(expected)) <= 1e-4
    assert found.cost.answers(9, [[13] * 4])[0] > 4 + 6 * 5  # the questions are paid for


def test_a_verbaliser_needs_words_of_one_token_and_a_language_model(folder: Path) -> None:
    (folder / HEAD).unlink()
    with pytest.raises(ConfigurationError, match="2 tokens"):
        opened(folder, VERBALISER.replace('yes = "yes"', 'yes = "a heart"'))
    change_weights(folder, lambda weights: weights.__delitem__(ending(weights, "lm_head.weight")))
    with pytest.raises(ConfigurationError, match="has no lm_head"):
        opened(folder, VERBALISER)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ({"weight": torch.zeros(2, 6, 64)[..., :63].contiguous(), "bias": torch.zeros(2, 6)}, "weight is"),
        ({"weight": torch.zeros(1, 64), "bias": torch.zeros(1)}, r"must be \[1, 6\]"),
        (value_head(), r"must be \[1, 6\]"),
        ({"v_head.weight": torch.zeros(1, 64)}, r"holds no head: .* it has v_head\.weight$"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(folder: Path, head: dict[str, Tensor], says: str) -> None:
    save_file(head, folder / HEAD)
    with pytest.raises(ConfigurationError, match=says):
        opened(folder)


def test_a_checkpoint_without_its_head_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no head"):
        opened(folder, 'head = "model.safetensors"')
    (folder / HEAD).write_bytes(b"not a head")
    with pytest.raises(ConfigurationError, match="no head at"):
        opened(folder)


def test_weights_are_not_made_up(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.__delitem__(ending(weights, "model.norm.weight")))
    with pytest.raises(ConfigurationError, match=r"has no .*norm\.weight"):
        opened(folder)


def test_weights_nobody_uses_are_refused(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update(linear_head()))
    with pytest.raises(ConfigurationError, match="no place for"):
        opened(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({ending(weights, "model.norm.weight"): torch.ones(63)}))
    with pytest.raises(ConfigurationError):
        opened(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="cannot load"):
        opened(folder)


def test_code_of_a_checkpoint_never_runs(folder: Path) -> None:
    (folder / "modeling.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    auto_map = {"AutoModelForImageTextToText": "modeling.Model", "AutoConfig": "modeling.Config"}
    change_config(folder, model_type="of_my_own", auto_map=auto_map)
    with pytest.raises(ConfigurationError, match="cannot load"):
        opened(folder)
    assert not (folder / "ran").exists()


def test_a_file_without_a_digest_is_refused(folder: Path) -> None:
    write_manifest(folder, FAMILY)
    (folder / "processor_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"processor_config\.json"):
        checkpoints.opened(folder)


def test_a_template_that_cannot_hold_the_image_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="0 placeholders"):
        opened(folder, f'head = "{HEAD}"', ["<vision>"])
    with pytest.raises(ConfigurationError, match="3 placeholders"):
        opened(folder, f'head = "{HEAD}"', ["<image>"] * 3)


def test_layers_that_keep_no_state_to_branch_off_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, text_config=config["text_config"] | {"layer_types": ["linear_attention"] * 2})
    with pytest.raises(ConfigurationError, match="branch off"):
        opened(folder)
