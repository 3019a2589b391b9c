"""From a recipe and examples to a folder that serves: guard, split, run, export."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from medreward.artifacts.manifest import Manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.errors import ConfigurationError
from medreward.lab.vlm.base import Base, read_base
from medreward.lab.vlm.contamination import clean
from medreward.lab.vlm.examples import Example, data_digest, held_pairs, split, with_ties
from medreward.lab.vlm.export import Learnt, TooLittleGain, export
from medreward.lab.vlm.recipe import Recipe
from medreward.lab.vlm.train import Run
from medreward.types import Evidence

__all__ = ["MODEL", "TooLittleGain", "finetune"]

MODEL: Final = "model"
RECIPE: Final = "recipe.toml"
BEGUN: Final = "run.json"


def finetune(
    recipe_file: Path,
    recipe: Recipe,
    examples: Sequence[Example],
    benchmark: Sequence[Example],
    out: Path,
    console: Console,
) -> Manifest | None:
    """Returns the manifest of what was exported, or None in a process that does not lead its run.

    Fails with a ConfigurationError for what cannot be trained, and raises TooLittleGain where nothing is exported.
    """
    refuse_false_evidence(recipe, examples)
    told = with_ties(clean(examples, benchmark, recipe.data), recipe.loss.ties)
    parts = split(told, recipe.data, recipe.seed)
    pairs = held_pairs(parts.held, recipe.export.max_held)
    base, digest = read_base(recipe), data_digest(told)
    begin(out, recipe_file, digest)
    sizes = f"{len(parts.train)} examples to learn from, {len(parts.dev)} to stop by, {len(parts.held)} held back"
    run = Run(recipe, base, parts, out, console)
    if run.leads:
        console.print(sizes, highlight=False)
    run.finish()
    if not run.leads:
        return None
    with console.status("measuring"):
        learnt = Learnt(_name(base, recipe), digest, len(parts.train), run.steps)
        return export(run.opened, base, recipe, pairs, learnt, out / MODEL)


def refuse_false_evidence(recipe: Recipe, examples: Sequence[Example]) -> None:
    """Fails where the recipe says that people made the labels and a row says that a rule did."""
    made = [example.where for example in examples if example.evidence not in (None, Evidence.PHYSICIAN)]
    if recipe.evidence == Evidence.PHYSICIAN and made:
        raise ConfigurationError(f'evidence is "physician" in the recipe, and {made[0]} says that it is not')


def begin(out: Path, recipe_file: Path, digest: str) -> None:
    """Makes the folder of a run; fails where it has one of another recipe or of other data."""
    out.mkdir(parents=True, exist_ok=True)
    recipe, begun = out / RECIPE, out / BEGUN
    if begun.exists():
        if recipe.read_bytes() != recipe_file.read_bytes():
            raise ConfigurationError(f"{out} has a run of another recipe: name another folder, or the recipe in it")
        if json.loads(begun.read_bytes())["data"] != digest:
            raise ConfigurationError(
                f"{out} has a run on other data: name another folder, or the data it was begun with"
            )
        return
    recipe.write_bytes(recipe_file.read_bytes())
    begun.write_text(json.dumps({"data": digest}) + "\n", "utf-8")


def _name(base: Base, recipe: Recipe) -> str:
    """Returns what names the base for certain: a fingerprint, where it has a manifest."""
    return base.manifest.fingerprint if (base.folder / MANIFEST_FILE).exists() else recipe.base
