"""All that a run learns from, put together: cases, images at model size, text sets, phantoms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medreward.errors import ConfigurationError
from medreward.lab.training import recipe
from medreward.lab.training.cases import Case, read_cases, read_lines
from medreward.lab.training.grades import Group
from medreward.lab.training.images import Images, Maker, cached
from medreward.lab.training.library import Library, read_diseases
from medreward.lab.training.phantoms import draw_phantoms
from medreward.lab.training.texts import Texts

DEV_PAIRS = "dev_pairs.jsonl"


@dataclass(frozen=True, slots=True)
class DevPair:
    source: str
    image: str
    question: str
    good: str
    bad: str
    kind: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    library: Library
    exact: list[Group]
    texts: Texts
    dev: list[DevPair]
    images: Images
    cache: Path


def read_corpus(settings: recipe.Recipe, folders: Sequence[Path], cache: Path) -> Corpus:
    cases: list[Case] = []
    dev: list[DevPair] = []
    makers: dict[str, Maker] = {}
    exact: list[Group] = []
    diseases: dict[str, dict[str, str]] = {}
    for folder in folders:
        found, pairs = _some(read_cases(folder), settings), read_dev(folder / DEV_PAIRS)
        for name in {case.image for case in found} | {pair.image for pair in pairs}:
            makers.setdefault(name, (folder / name).read_bytes)
        cases += found
        dev += pairs
        diseases |= read_diseases(folder)
    if not cases:
        raise ConfigurationError(f"no qa.jsonl with training rows below {', '.join(map(str, folders))}")
    if settings.phantoms:
        drawn = draw_phantoms(settings)
        makers |= drawn.makers
        cases += drawn.cases
        exact = drawn.groups
    images = cached(makers, settings.tower.side, cache)
    return Corpus(Library(cases, diseases), exact, Texts(folders), dev, images, cache)


def _some(cases: list[Case], settings: recipe.Recipe) -> list[Case]:
    """Returns the cases of so many images of each set; all cases if the recipe names no number."""
    if not settings.images_of_a_set:
        return cases
    chosen: set[str] = set()
    names = sorted({case.image for case in cases})
    for source in sorted({name.split("/")[0] for name in names}):
        of_it = [name for name in names if name.split("/")[0] == source]
        order = np.random.default_rng(settings.seed).permutation(len(of_it))[: settings.images_of_a_set]
        chosen |= {of_it[place] for place in order}
    return [case for case in cases if case.image in chosen]


def read_dev(path: Path) -> list[DevPair]:
    rows = read_lines(path) if path.exists() else iter(())
    return [
        DevPair(row["set"], row["image"], row["question"], row["good"], row["bad"], row["kind"], tuple(row["dims"]))
        for row in rows
    ]
