"""All that a run learns from, put together: cases, images at model size, text sets, phantoms."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medreward.training import recipe
from medreward.training.cases import read_cases, read_lines
from medreward.training.grades import Group
from medreward.training.images import Images, Maker, cached
from medreward.training.library import Library, read_diseases
from medreward.training.texts import Texts

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


def read_corpus(
    settings: recipe.Recipe, folder: Path, cache: Path, progress: Callable[[int], None] = lambda place: None
) -> Corpus:
    cases = read_cases(folder)
    dev = read_dev(folder / DEV_PAIRS)
    makers: dict[str, Maker] = {
        name: (folder / name).read_bytes for name in {case.image for case in cases} | {pair.image for pair in dev}
    }
    exact: list[Group] = []
    if settings.phantoms:
        from medreward.training.phantoms import draw_phantoms

        drawn = draw_phantoms(settings)
        makers |= drawn.makers
        cases += drawn.cases
        exact = drawn.groups
    return Corpus(
        Library(cases, read_diseases(folder)),
        exact,
        Texts(folder),
        dev,
        cached(makers, settings.tower.side, cache, progress),
    )


def read_dev(path: Path) -> list[DevPair]:
    rows = read_lines(path) if path.exists() else iter(())
    return [
        DevPair(row["set"], row["image"], row["question"], row["good"], row["bad"], row["kind"], tuple(row["dims"]))
        for row in rows
    ]
