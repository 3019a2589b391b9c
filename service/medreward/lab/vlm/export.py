"""What a run has learnt as a folder that serves: weights, heads, manifest, golden triples, figures and a card."""

import json
import shutil
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from medreward.artifacts.manifest import Calibration, Manifest, parse_manifest
from medreward.artifacts.repository import MANIFEST_FILE, sha256_of, transformers_files
from medreward.artifacts.toml import toml
from medreward.backends.torch_vlm import adapter
from medreward.backends.torch_vlm.adopt import HEAD, VALUE_HEAD
from medreward.backends.torch_vlm.backbone import load
from medreward.lab.training.calibrate import FEWEST, fit_temperature
from medreward.lab.training.card import card
from medreward.lab.training.export import CARD, EVIDENCE, GOLDEN, golden_examples
from medreward.lab.training.served import Served
from medreward.lab.vlm.base import Base, Opened
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.measure import logits_of, measure_held
from medreward.lab.vlm.pairs_right import Numbers, ahead
from medreward.lab.vlm.recipe import Recipe
from medreward.types import DIMENSIONS, Evidence

ROLES: Final = {"card": CARD, "golden": GOLDEN, "measured": EVIDENCE}
BESIDE: Final = tuple(ROLES.values())  # of the base, which are not ours
NOT_CALIBRATED: Final = dict.fromkeys(DIMENSIONS, Calibration(median=0.0, scale=1.0))
LABELS: Final[Mapping[Evidence, str]] = {
    Evidence.PHYSICIAN: "Labels are by people, as the recipe says. It is no medical device.",
    Evidence.CONSTRUCTED: "All labels are made by rule; no physician graded an answer. It is no medical device.",
    Evidence.NONE: "Nobody vouches for the labels. It is no medical device.",
}
LIBRARIES: Final = ("torch", "transformers", "peft", "accelerate", "medreward")
UNCERTAINTY: Final = "The standard deviation of the ensemble's logits. It is no probability of error."


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a manifest says of how its model came to be."""

    base: str  # its fingerprint, or the name of what has none
    data: str
    examples: int
    steps: int


def write_weights(opened: Opened, base: Base, recipe: Recipe, to: Path) -> None:
    """Writes checkpoint, adapter and heads, as `medreward serve` loads them. The base's own weights stay as they are
    beside an adapter.
    """
    to.mkdir(parents=True)
    if recipe.tune.method == "lora":
        _copy_base(base.folder, to)
        _save_adapter(opened.model, to)
    else:
        _copy_texts(base.folder, to)
        opened.model.to(base.dtype).save_pretrained(to)
    opened.scorer.heads.save(to / HEAD)


def _copy_base(folder: Path, to: Path) -> None:
    """Copies the base as it is; with an adapter in it, as it is when that is merged."""
    if adapter.has_adapter(folder):
        _copy_texts(folder, to)
        load(folder, "cpu", torch.float32)[0].save_pretrained(to)
        return
    _copy_texts(folder, to)
    for path in folder.iterdir():
        if path.name not in (HEAD, VALUE_HEAD) and path.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(path, to / path.name)


def _copy_texts(folder: Path, to: Path) -> None:
    """Copies config, tokenizer, processor and chat template."""
    for path in transformers_files(folder):
        weights = path.name.endswith((".safetensors", ".safetensors.index.json"))
        if not weights and path.name not in (*BESIDE, adapter.CONFIG):
            shutil.copyfile(path, to / path.name)


def _save_adapter(model: Any, to: Path) -> None:
    """Writes peft's two files; its list of modules is sorted, for a set has another order in each process."""
    with TemporaryDirectory() as name:
        model.save_pretrained(name, save_embedding_layers=False)
        shutil.copyfile(Path(name) / adapter.WEIGHTS, to / adapter.WEIGHTS)
        config = json.loads((Path(name) / adapter.CONFIG).read_bytes())
    config["target_modules"] = sorted(config["target_modules"])
    (to / adapter.CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def temperatures(leads: Numbers) -> Numbers:
    """Returns what to divide each dimension's logits by; one that too few held pairs tell of takes that of all."""
    told = [leads[~np.isnan(leads[:, place]), place] for place in range(len(DIMENSIONS))]
    every = np.concatenate(told)
    rest = fit_temperature(every) if len(every) >= FEWEST else 1.0
    return np.array([fit_temperature(values) if len(values) >= FEWEST else rest for values in told])


def levels(logits: Numbers) -> dict[str, Calibration]:
    """Returns levels at which the median held answer scores 0.5, and scores spread like a logistic of unit scale."""
    spread = np.maximum(logits.std(0) * np.sqrt(3) / np.pi, 1e-3)
    return {
        name: Calibration(median=round(float(np.median(logits[:, n])), 4), scale=round(float(spread[n]), 4))
        for n, name in enumerate(DIMENSIONS)
    }


class TooLittleGain(Exception):
    """The image brings less than the recipe asks for; the message says so in one line."""


def export(opened: Opened, base: Base, recipe: Recipe, pairs: Sequence[Example], learnt: Learnt, to: Path) -> Manifest:
    """Writes the model as a folder that serves, calibrated and measured on pairs that were held back.

    Raises TooLittleGain where the image brings less than the recipe's bound; then only the figures are written, beside
    where the model would lie.
    """
    draft = to.with_name(f"{to.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    write_weights(opened, base, recipe, draft)
    about = _About(base.manifest, recipe, learnt)
    manifest = about.write(draft, NOT_CALIBRATED)
    divide = temperatures(ahead(logits_of(Served(draft, manifest, recipe.learn.threads, device="auto"), pairs), pairs))
    opened.scorer.heads.divide(torch.from_numpy(divide).float().to(opened.scorer.heads.bias.device))
    opened.scorer.heads.save(draft / HEAD)
    served = Served(draft, about.write(draft, NOT_CALIBRATED), recipe.learn.threads, device="auto")
    calibration = levels(logits_of(served, pairs))
    found = measure_held(served, pairs, recipe.weights, recipe.export.probed)
    try:
        refuse_too_little_gain(found, recipe, to)
    except TooLittleGain:
        shutil.rmtree(draft)
        raise
    (draft / EVIDENCE).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (draft / CARD).write_text(
        card(recipe.name, recipe.version, about.provenance, found, LABELS[recipe.evidence]), "utf-8"
    )
    (draft / GOLDEN).write_text(golden(served, manifest.image.required), "utf-8")
    manifest = about.write(draft, calibration)
    for path in draft.iterdir():
        path.chmod(0o644)  # safetensors gives its files to their owner alone
    shutil.rmtree(to, ignore_errors=True)
    draft.rename(to)
    return manifest


def refuse_too_little_gain(found: Mapping[str, Any], recipe: Recipe, to: Path) -> None:
    """Raises TooLittleGain where the image brings less than the bound, or nothing tells what it brings."""
    name, bound = recipe.export.dimension, recipe.export.min_gain
    figures = to.with_name("measured.json")
    figures.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    told = found["dimensions"].get(name)
    if told is None:
        raise TooLittleGain(f"no held pair tells of {name}: name another export.dimension; nothing was exported")
    if told["gain"]["gain"] < bound:
        raise TooLittleGain(
            f"the image raises the share of held pairs right on {name} by {100 * told['gain']['gain']:.1f} points, "
            f"and export.min_gain asks for {100 * bound:.1f}: nothing was exported; the figures are in {figures}"
        )


def golden(served: Served, needs_image: bool) -> str:
    """Returns golden triples of phantoms, as JSON, with the logits that the folder gives them."""
    rows = []
    examples = [example for example in golden_examples() if example.image or not needs_image]
    for place, example in enumerate(examples):
        image = None if example.image is None else served.image(str(place), example.image)
        group = served.group(image, example.question, [example.response])
        logits = served.backend.score([group])[0][0].astype(np.float64).mean(0)
        rows.append(
            {
                "image": None if example.image is None else b64encode(example.image).decode(),
                "question": example.question,
                "response": example.response,
                "logits": {name: round(float(logits[n]), 6) for n, name in enumerate(DIMENSIONS)},
            }
        )
    return json.dumps(rows, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class _About:
    """Writes the manifest of a folder, with the digests of what lies in it."""

    base: Manifest
    recipe: Recipe
    learnt: Learnt

    @property
    def provenance(self) -> str:
        """The recipe's own words, and what the run knows."""
        how = "LoRA" if self.recipe.tune.method == "lora" else "all weights"
        return (
            f"{self.recipe.provenance}; {how} of {self.learnt.base}, {self.learnt.steps} steps on "
            f"{self.learnt.examples} examples"
        )

    def write(self, folder: Path, calibration: Mapping[str, Calibration]) -> Manifest:
        recipe, base = self.recipe, self.base
        there = {name for name in (CARD, EVIDENCE, GOLDEN) if (folder / name).exists()}
        files = {path.name for path in transformers_files(folder)} | there
        assert base.vlm
        head = {
            "name": recipe.name,
            "version": recipe.version,
            "family": base.family,
            "dimensions": list(DIMENSIONS),
            "runtime": "torch_vlm",
            "evidence": str(recipe.evidence),
            "license": recipe.license,
            "provenance": self.provenance,
            **({"uncertainty": UNCERTAINTY} if recipe.heads.count > 1 else {}),
            **{role: name for role, name in ROLES.items() if name in there},
        }
        tables: dict[str, Mapping[str, Any]] = {
            "image": base.image.model_dump(mode="json", exclude_defaults=True),
            "text": base.text.model_dump(mode="json", exclude_defaults=True, exclude={"turns"}),
            **({"text.turns": base.text.turns.model_dump(mode="json")} if base.text.turns else {}),
            "vlm": {"image": list(base.vlm.image), "head": HEAD},
            "weights": dict(recipe.weights),
            **{f"calibration.{name}": level.model_dump() for name, level in calibration.items()},
            "training": {
                "base": self.learnt.base,
                "data": self.learnt.data,
                "seed": recipe.seed,
                "steps": self.learnt.steps,
                "versions": [f"{name} {version(name)}" for name in LIBRARIES],
            },
            "files": {name: sha256_of(folder / name) for name in sorted(files)},
        }
        text = toml(head, tables)
        manifest = parse_manifest(text, folder / MANIFEST_FILE)
        (folder / MANIFEST_FILE).write_text(text, "utf-8")
        return manifest
