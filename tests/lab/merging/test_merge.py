"""Merging experts: on what they change of their base, whatever kind of adapter it is in."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.torch_vlm import checkpoints
from lab.merging.experts import (
    change_config,
    finished,
    head,
    levels_of,
    logits,
    merged,
    weights,
    write_base,
    write_expert,
    write_tuned,
)
from medreward.artifacts.manifest import read_manifest
from medreward.errors import ConfigurationError
from medreward.lab.merging.apart import put_together
from medreward.lab.merging.merge import Named

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft 0.21 still asks
    pytest.mark.filterwarnings("ignore:Adapter 'default'"),  # peft takes the bias of a B for a torn matrix
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and two experts on it of different ranks and modules."""
    folder = tmp_path_factory.mktemp("experts")
    base = write_base(folder / "base")
    write_expert(base, folder / "chest", 1, levels_of(1))
    write_expert(base, folder / "brain", 2, levels_of(2), r=2, target_modules=["v_proj", "o_proj", "linear_1"])
    return folder


@pytest.fixture
def copies(made: Path, tmp_path: Path) -> Path:
    """Copies of them to damage."""
    return Path(shutil.copytree(made, tmp_path / "made"))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "patterns": {"rank_pattern": {"linear_1": 2}, "alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 20}},
    "rslora": {"use_rslora": True},
    "biases": {"bias": "all"},
    "biases of its own": {"lora_bias": True, "target_modules": ["linear_1", "fc1"]},  # peft: where there is one
    "dora": {"use_dora": True},
    "an embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "modules trained whole": {"modules_to_save": ["linear_2"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_weight_1_of_one_expert_gives_it_back(made: Path, tmp_path: Path, kind: str) -> None:
    expert = write_expert(made / "base", tmp_path / "expert", 3, **KINDS[kind])
    out = tmp_path / "out"
    merged(made / "base", [expert, made / "brain"], out, [1, 0])
    found, expected = weights(out), weights(expert)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert (weight - expected[name]).abs().max() <= 1e-6, name
    assert np.abs(logits(out) - logits(expert)).max() <= 1e-5  # what rounding makes of it in the whole model
    assert np.abs(logits(out) - logits(made / "base")).max() > 0.01


@pytest.mark.parametrize("method", ["ties", "dare_ties", "ram"])
def test_one_expert_alone_has_nothing_to_resolve(made: Path, tmp_path: Path, method: str) -> None:
    merged(made / "base", [made / "chest"], tmp_path / "out", method=method, density=0.1)
    assert np.abs(logits(tmp_path / "out") - logits(made / "chest")).max() <= 1e-6


def test_a_whole_checkpoint_is_an_expert_too(made: Path, tmp_path: Path) -> None:
    tuned = write_tuned(made / "base", tmp_path / "tuned", 4)
    merged(made / "base", [tuned, made / "chest"], tmp_path / "out", [1, 0])
    assert np.abs(logits(tmp_path / "out") - logits(tuned)).max() <= 1e-6
    both = merged(made / "base", [tuned, made / "chest"], tmp_path / "both", method="ties")
    assert both.conflicts["whole"]["sign_disagreement"] > 0


def test_the_merge_is_on_what_a_and_b_make_together_whatever_their_ranks(made: Path, tmp_path: Path) -> None:
    """Merged apart, A of rank 4 and A of rank 2 could not even be added."""
    out = tmp_path / "out"
    merged(made / "base", [made / "chest", made / "brain"], out, [3, 1])
    base, found = (load_file(folder / "model.safetensors") for folder in (made / "base", out))
    alone = []
    for place, name in enumerate(("chest", "brain")):
        merged(made / "base", [made / name], tmp_path / name)
        alone.append(load_file(tmp_path / name / "model.safetensors"))
        assert place == 0 or any(not torch.equal(alone[0][key], alone[1][key]) for key in base)
    for key, weight in base.items():
        expected = weight + 0.75 * (alone[0][key] - weight) + 0.25 * (alone[1][key] - weight)
        assert torch.allclose(found[key], expected, atol=1e-6), key


def test_heads_are_merged_on_one_scale(made: Path, tmp_path: Path) -> None:
    """Two experts that differ in the scale of their logits alone score alike, and so does what is merged of them."""
    levels = {"accuracy": (2.0, 4.0), "overall": (-1.0, 0.5)}
    shutil.copytree(made / "chest", tmp_path / "first")
    finished(tmp_path / "first", {"accuracy": (0.5, 2.0), "overall": (1.0, 3.0)})
    shutil.copytree(tmp_path / "first", tmp_path / "other")
    other_head = load_file(tmp_path / "other" / "reward_head.safetensors")
    for dimension, own, other in ((0, (0.5, 2.0), (2.0, 4.0)), (5, (1.0, 3.0), (-1.0, 0.5))):
        factor = other[1] / own[1]
        other_head["weight"][:, dimension] *= factor
        other_head["bias"][:, dimension] = (other_head["bias"][:, dimension] - own[0]) * factor + other[0]
    save_file(other_head, tmp_path / "other" / "reward_head.safetensors")
    finished(tmp_path / "other", levels)
    made_of_both = merged(made / "base", [tmp_path / "first", tmp_path / "other"], tmp_path / "out")
    scores = [standardised(folder) for folder in (tmp_path / "first", tmp_path / "other", tmp_path / "out")]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4
    assert np.abs(scores[0] - scores[2]).max() < 1e-4
    assert made_of_both.manifest.calibration["accuracy"].median == 1.25
    assert made_of_both.manifest.calibration["accuracy"].scale == 3


def standardised(folder: Path) -> np.ndarray[Any, Any]:
    """What scores are the sigmoid of."""
    levels = read_manifest(folder / "model.toml").calibration.values()
    medians, scales = (np.array([getattr(one, part) for one in levels]) for part in ("median", "scale"))
    return np.asarray((logits(folder) - medians) / scales)


def test_heads_of_two_layers_are_merged_to_the_mean_of_their_logits(made: Path, copies: Path, tmp_path: Path) -> None:
    for place, name in enumerate(("chest", "brain")):
        torch.manual_seed(place)
        two = {"inner.weight": torch.randn(2, 8, 64), "inner.bias": torch.randn(2, 8)}
        save_file(
            {**two, "weight": torch.randn(2, 6, 8), "bias": torch.randn(2, 6)},
            copies / name / "reward_head.safetensors",
        )
        for adapter in copies.glob(f"{name}/adapter_*"):
            adapter.unlink()
        finished(copies / name)
    merged(made / "base", [copies / "chest", copies / "brain"], tmp_path / "out", [3, 1])
    expected = 0.75 * logits(copies / "chest") + 0.25 * logits(copies / "brain")
    assert np.abs(logits(tmp_path / "out") - expected).max() < 1e-5


def test_the_merged_model_says_what_it_was_made_of(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = merged(made / "base", [made / "chest", made / "brain"], out, [3, 1], "ties", density=0.2)
    manifest = read_manifest(out / "model.toml")
    assert manifest == found.manifest
    for name in ("chest", "brain"):
        assert read_manifest(made / name / "model.toml").fingerprint in manifest.provenance
    assert "ties" in manifest.provenance
    assert manifest.evidence == "none"
    assert not list(out.glob("adapter_*"))
    assert checkpoints.opened(out)


def test_the_evidence_is_the_weakest_of_all_experts(copies: Path, tmp_path: Path) -> None:
    for name, evidence, licence in (("chest", "physician", "MIT"), ("brain", "constructed", "Apache-2.0")):
        manifest = copies / name / "model.toml"
        text = manifest.read_text().replace('evidence = "none"', f'evidence = "{evidence}"')
        manifest.write_text(text.replace('license = "Apache-2.0"', f'license = "{licence}"'))
    found = merged(copies / "base", [copies / "chest", copies / "brain"], tmp_path / "out").manifest
    assert (found.evidence, found.license) == ("constructed", "MIT; Apache-2.0")
    named = [Named(copies / "chest", "chest")]
    assert put_together(copies / "base", named, tmp_path / "together", "together").evidence == "none"  # the base's


def test_conflicts_are_reported_for_each_layer(made: Path, tmp_path: Path) -> None:
    found = merged(made / "base", [made / "chest", made / "brain"], tmp_path / "out", method="ties", density=0.5)
    layers = {one["layer"]: one for one in found.conflicts["layers"]}
    text = layers["model.language_model.layers.0"]
    assert 0.4 < text["sign_disagreement"] < 0.6  # random adapters agree on half of what both change
    assert abs(text["cosine"]["chest|brain"]) < 0.2
    assert 0.5 < text["pruned"] < 0.8  # half is trimmed, and of the rest some is outvoted
    assert json.loads(json.dumps(found.conflicts)) == found.conflicts
    alone = merged(made / "base", [made / "chest"], tmp_path / "alone", method="ties")
    assert alone.conflicts["whole"]["pruned"] == 0
    assert alone.conflicts["whole"]["sign_disagreement"] is None


def test_the_same_seed_drops_the_same(made: Path, tmp_path: Path) -> None:
    experts = [made / "chest", made / "brain"]
    prints = [
        merged(made / "base", experts, tmp_path / str(n), method="dare_ties", seed=seed).manifest.fingerprint
        for n, seed in enumerate((7, 7, 8))
    ]
    assert prints[0] == prints[1] != prints[2]


def refusal(copies: Path, out: Path) -> str:
    with pytest.raises(ConfigurationError) as refused:
        merged(copies / "base", [copies / "chest", copies / "brain"], out)
    assert not out.exists()
    return str(refused.value)


def test_an_expert_on_another_base_is_refused(copies: Path, tmp_path: Path) -> None:
    checkpoints.write_checkpoint(copies / "base", "llava", seed=1)
    assert "was trained on another base: its model.safetensors" in refusal(copies, tmp_path / "out")


def test_a_checkpoint_of_another_shape_is_refused(copies: Path, tmp_path: Path) -> None:
    shutil.rmtree(copies / "brain")
    write_tuned(copies / "base", copies / "brain", 1)
    tuned = load_file(copies / "brain" / "model.safetensors")
    name = next(name for name in tuned if name.endswith("q_proj.weight"))
    save_file({**tuned, name: tuned[name][:-1].clone()}, copies / "brain" / "model.safetensors")
    assert f"is no model of this base: {name} is" in refusal(copies, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft_type": "IA3"}, "only LoRA is merged"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"kasa_config": {"beta": 1}}, "uses kasa_config"),
        ({"layer_replication": [[0, 2]]}, "uses layer_replication"),
        ({"an_option_of_tomorrow": 3}, "uses an_option_of_tomorrow"),
    ],
)
def test_an_adapter_whose_changes_are_not_known_is_refused(
    copies: Path, tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    change_config(copies / "brain", **values)
    assert says in refusal(copies, tmp_path / "out")


def test_an_adapter_for_modules_that_the_base_has_not_is_refused(copies: Path, tmp_path: Path) -> None:
    path = copies / "brain" / "adapter_model.safetensors"
    moved = {name.replace("layers.1", "layers.9"): weight for name, weight in load_file(path).items()}
    save_file(moved, path, {"format": "pt"})
    finished(copies / "brain")
    assert "of another base, which has no" in refusal(copies, tmp_path / "out")
    assert "layers.9" in refusal(copies, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"<user>", ', "", "differ in text"),
        ("max_tokens = 512", "max_tokens = 256", "differ in text"),
        ('head = "reward_head.safetensors"', '[vlm.verbaliser]\nask = ["{rubric}"]\nyes = "yes"\nno = "no"', "no head"),
    ],
)
def test_experts_that_are_read_otherwise_are_refused(
    copies: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    manifest = copies / "brain" / "model.toml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    assert says in refusal(copies, tmp_path / "out")


def test_heads_of_two_kinds_are_refused(copies: Path, tmp_path: Path) -> None:
    save_file(
        {name: tensor[:1].clone() for name, tensor in head().items()}, copies / "brain" / "reward_head.safetensors"
    )
    finished(copies / "brain")
    assert "cannot become one" in refusal(copies, tmp_path / "out")


def test_an_expert_without_a_manifest_is_refused(copies: Path, tmp_path: Path) -> None:
    (copies / "brain" / "model.toml").unlink()
    assert "has no model.toml" in refusal(copies, tmp_path / "out")


def test_what_lies_in_the_way_is_not_written_over(made: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigurationError, match="already exists"):
        merged(made / "base", [made / "chest"], tmp_path / "out")
