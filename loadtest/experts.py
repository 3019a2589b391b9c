"""Four experts, one general model of as many steps, and merges of the experts: what each is worth on each specialty.

Everything is made here: a vision-language model of random weights, which first learns on drawn chests and brains (the
base), and four specialties, each a region of the body that is drawn as two modalities, with its own question and its
own two answers. Each seed has its own weights and its own drawings. `--work` keeps what was made: a seed that is there
is not run again, and the table is of all seeds together. It runs on one core; `docs/merging.md` shows a table.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from loadtest.kept import table
from rich.console import Console

from medreward.artifacts.manifest import read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.backends.base import Group, ModelImage
from medreward.bench.cases import Case
from medreward.bench.layout import write
from medreward.lab.merging.apart import put_together
from medreward.lab.merging.merge import Named, merge
from medreward.lab.merging.methods import How, Method
from medreward.lab.phantoms.benchmark import png
from medreward.lab.phantoms.draw import draw, imagine
from medreward.lab.training.evaluate import won
from medreward.lab.training.measure import blanked
from medreward.lab.training.served import Served
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.finetune import MODEL, finetune
from medreward.lab.vlm.measure import Shown, logits_of
from medreward.lab.vlm.pairs_right import ahead
from medreward.lab.vlm.phantom_rows import write_rows
from medreward.lab.vlm.recipe import Recipe
from medreward.lab.vlm.rows import read_file
from medreward.lab.vlm.tiny import write_tiny
from medreward.types import DIMENSIONS, Evidence

SIDE: Final = 48
BASE_STEPS: Final = 50
LEARN_IMAGES, CHOOSE_IMAGES, NEW_IMAGES = 70, 60, 100  # of a specialty: to learn from, to choose by, to measure on
APART: Final = 100_000  # seeds between the first drawings of two parts
HELD_SHARE: Final = 0.15  # of those to learn from: they calibrate
DEFAULT_DENSITY: Final = 0.5  # as `medreward merge` has it
DENSITIES, SCALES = (0.05, 0.1, 0.2, 0.5), (1.0, 2.0)  # to choose from
RESULT: Final = "result.json"
QUIET: Final = Console(quiet=True)


@dataclass(frozen=True, slots=True)
class Specialty:
    """A region of the body, and what is true of it by how it is shown."""

    region: str
    question: str
    claims: Mapping[str, str]  # by modality


SPECIALTIES: Final = (
    Specialty(
        "breast",
        "How was the breast examined?",
        {"mammogram": "By compression between plates.", "ultrasound": "By sound."},
    ),
    Specialty("foot", "What shows the foot?", {"radiograph": "A film.", "photograph": "A camera."}),
    Specialty(
        "heart",
        "What was the heart seen with?",
        {"echocardiogram": "Echoes of a probe.", "MR": "A strong magnet."},
    ),
    Specialty("pelvic_cavity", "How does it show the pelvis?", {"CT": "As one slice.", "radiograph": "As a shadow."}),
)


class Asked(Served):
    """A folder as it is served, asked for one department."""

    def __init__(self, folder: Path, department: str = "") -> None:
        manifest = read_manifest(folder / MANIFEST_FILE)
        super().__init__(folder, manifest, threads=1)
        self._expert = manifest.expert_of(department) if department else ""

    def group(self, image: ModelImage | None, question: str, responses: Sequence[str]) -> Group:
        """Returns the group, for the expert of the department."""
        return replace(super().group(image, question, responses), expert=self._expert)


def draw_rows(folder: Path, specialty: Specialty, images: int, first: int, pairs: int) -> list[Example]:
    """Returns pairs about new drawings of the specialty, whose seeds start at `first`; as many of each modality."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(first)
    rows = []
    seeds = count(first)
    for modality in islice(cycle(specialty.claims), images):
        seed = next(seed for seed in seeds if imagine(seed, specialty.region).modality == modality)
        name = f"{specialty.region}-{seed}.png"
        (folder / name).write_bytes(png(draw(seed, specialty.region, size=SIDE)))
        rows += [{"image": name, **pair(specialty, modality, bool(dice.integers(2)))} for _ in range(pairs)]
    file = folder / f"{specialty.region}-{first}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [*read_file(file, ("overall",))]


def pair(specialty: Specialty, modality: str, right_first: bool) -> dict[str, Any]:
    """Returns a row about an image of this modality, of which the image alone tells which answer is right."""
    right = specialty.claims[modality]
    wrong = next(claim for claim in specialty.claims.values() if claim != right)
    return {
        "question": specialty.question,
        "organ": specialty.region,
        "answers": [right, wrong] if right_first else [wrong, right],
        "labels": dict.fromkeys(("accuracy", "overall"), "A" if right_first else "B"),
        "evidence": str(Evidence.CONSTRUCTED),
    }


def learnt(base: Path, out: Path, examples: Sequence[Example], learn: Mapping[str, Any], seed: int, tune: Any) -> Path:
    """Returns the folder of a model that learnt from the examples, as `medreward train` makes it."""
    recipe = Recipe.model_validate(
        {
            "kind": "vlm",
            "name": out.name,
            "version": "1",
            "base": str(base),
            "evidence": "constructed",
            "license": "Apache-2.0",
            "provenance": "drawings of loadtest.experts",
            "weights": {"overall": 1.0},
            "seed": seed,
            "tune": tune,
            "heads": {"count": 2},
            "learn": {"head_rate": 3e-3, "threads": 1, **learn},
            "data": {"dev_share": 0.0, "held_share": HELD_SHARE},
            "export": {"min_gain": -1.0, "max_held": 30, "probed": 0},
        }
    )
    recipe_file = out.with_suffix(".json")
    recipe_file.write_text(recipe.model_dump_json(), "utf-8")
    finetune(recipe_file, recipe, examples, [], out, QUIET)
    print(f"seed {seed}: {out.name} has learnt, {time.process_time():.0f} s of CPU so far", flush=True)
    return out / MODEL


def right_of(model: Asked, pairs: Sequence[Example], shown: Shown = lambda picture: picture) -> list[float]:
    """Returns for each pair whether the model has it right on accuracy: 1, 0, or a half where logits are equal."""
    leads = ahead(logits_of(model, pairs, shown), pairs)[:, DIMENSIONS.index("accuracy")]
    right: list[float] = won(leads).tolist()
    return right


def write_benchmark(folder: Path, new: Mapping[str, Sequence[Example]]) -> None:
    """Writes the pairs in the layout of Med-RewardBench, for `medreward bench run`."""
    cases = [
        Case(
            f"{region}-{number}",
            region,
            one.question,
            (one.answers[0], one.answers[1]),
            one.picture.read() if one.picture else b"",
            {name: "A" if win else "B" for name, win in zip(DIMENSIONS, one.wins, strict=True) if not math.isnan(win)},
            evidence=str(Evidence.CONSTRUCTED),
        )
        for region, pairs in new.items()
        for number, one in enumerate(pairs)
    ]
    write(folder, cases, {})


class Trial:
    """One seed of the experiment, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, steps: int) -> None:
        self._folder, self._seed, self._steps = folder, seed, steps
        self._base = folder / "base" / MODEL
        parts = [(LEARN_IMAGES, 2), (CHOOSE_IMAGES, 1), (NEW_IMAGES, 1)]
        self._learn, self._choose, self._new = (
            {one.region: draw_rows(folder / "drawn", one, images, first, pairs) for one in SPECIALTIES}
            for first, (images, pairs) in zip(count(APART * 3 * seed, APART), parts, strict=False)
        )

    def result(self) -> dict[str, Any]:
        """Makes all models of the seed, and returns which new pairs each has right."""
        started = time.process_time()
        write_benchmark(self._folder / "benchmark", self._new)
        self._make_base()
        experts = [Named(self._expert(name, rows), name) for name, rows in self._learn.items()]
        general = self._expert("general", [row for rows in self._learn.values() for row in rows])
        together = self._folder / "apart"
        put_together(self._base, experts, together, "apart")
        found = {
            "base": self._credits(dict.fromkeys(self._new, Asked(self._base))),
            "general": self._credits(dict.fromkeys(self._new, Asked(general))),
            "expert": self._credits({name: Asked(self._folder / name / MODEL) for name in self._new}),
            "apart": self._credits({name: Asked(together, name) for name in self._new}),
        }
        chosen = {}
        for method in Method:
            how = chosen[str(method)] = self._best(experts, method)
            for name, asked in (str(method), self._how(method)), (f"{method}, chosen", how):
                found[name] = self._credits(dict.fromkeys(self._new, self._merged(experts, asked)))
        cpu = time.process_time() - started
        return {
            "seed": self._seed,
            "steps": self._steps,
            "cpu_s": cpu,
            "chosen": {method: [how.density, how.scale] for method, how in chosen.items()},
            "credits": found,
        }

    def _make_base(self) -> None:
        start = self._folder / "random"
        write_tiny(start, seed=self._seed)
        scans = [*read_file(write_rows(self._folder / "scans", 60, SIDE), ("overall",))]
        tune = {"method": "full", "vision": "trained"}
        learnt(start, self._base.parent, scans, {"steps": BASE_STEPS, "rate": 2e-3}, self._seed, tune)

    def _expert(self, name: str, rows: Sequence[Example]) -> Path:
        tune = {"method": "lora", "vision": "trained", "lora": {"rank": 8, "alpha": 16}}
        learn = {"steps": self._steps, "rate": 5e-3}
        return learnt(self._base, self._folder / name, rows, learn, self._seed, tune)

    def _how(self, method: Method, density: float = DEFAULT_DENSITY, scale: float = 1.0) -> How:
        return How(method, (1.0,) * len(SPECIALTIES), density, scale, self._seed)

    def _merged(self, experts: Sequence[Named], how: How) -> Asked:
        out = self._folder / f"{how.method}-{how.density:g}-{how.scale:g}"
        if not out.exists():
            merge(self._base, experts, how, out, out.name, lambda *_: None)
        return Asked(out)

    def _best(self, experts: Sequence[Named], method: Method) -> How:
        """Returns the density and scale of which most pairs are right that were drawn to choose by."""
        densities = DENSITIES if method is not Method.LINEAR else (DEFAULT_DENSITY,)
        hows = [self._how(method, density, scale) for density in densities for scale in SCALES]

        def right(how: How) -> float:
            model = self._merged(experts, how)
            return sum(sum(right_of(model, pairs)) for pairs in self._choose.values())

        return max(hows, key=right)

    def _credits(self, models: Mapping[str, Asked]) -> dict[str, dict[str, list[float]]]:
        """Returns for each specialty which of its new pairs its model has right, with images and with grey ones."""
        return {
            name: {"seen": right_of(model, self._new[name]), "grey": right_of(model, self._new[name], blanked)}
            for name, model in models.items()
        }


def results(work: Path, seeds: Sequence[int], steps: int) -> Iterator[dict[str, Any]]:
    """Yields the result of each seed; one that is in the folder already is not made again."""
    for seed in seeds:
        folder = work / f"seed-{seed}"
        if not (folder / RESULT).exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
            found = Trial(folder, seed, steps).result()
            (folder / RESULT).write_text(json.dumps(found) + "\n", "utf-8")
        yield json.loads((folder / RESULT).read_bytes())


@click.command(help=__doc__)
@click.option("--work", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for all models.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--steps", default=40, show_default=True, help="Of each expert, and of the general model.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the table, as Markdown.")
def main(work: Path, seeds: Sequence[int], steps: int, out: Path | None) -> None:
    found = [*results(work, seeds, steps)]
    told = table(found)
    print(told)
    if out:
        out.write_text(told, "utf-8")


if __name__ == "__main__":
    main()
