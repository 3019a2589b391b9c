"""The dev pairs, each with what its set says of the question."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medreward.errors import ConfigurationError
from medreward.lab.training.cases import asked_about, is_dev, plain, question_files, read_lines
from medreward.lab.training.corpus import DEV_PAIRS, DevPair, read_dev
from medreward.lab.training.served import Picture

YES_NO: Final = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Dev:
    pair: DevPair
    picture: Picture
    content: str  # the right answer, in the words of the set
    form: str  # open or closed
    about: str  # the kind of question


def read_dev_pairs(folder: Path) -> list[Dev]:
    pairs = read_dev(folder / DEV_PAIRS)
    if not any(pair.kind == "accuracy" for pair in pairs):
        raise ConfigurationError(f"nothing to measure on: no pairs of kind accuracy in {folder / DEV_PAIRS}")
    rows: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in question_files(folder):
        for row in read_lines(path):
            if is_dev(row):
                rows[f"{path.parent.name}/{row['image']}", row["question"]].append(row)
    return [_dev(folder, pair, rows[pair.image, pair.question]) for pair in pairs]


def _dev(folder: Path, pair: DevPair, rows: list[dict[str, Any]]) -> Dev:
    """Takes the row whose answer the good one holds; without any, the pair speaks for itself."""
    said = plain(pair.good)
    row = next((row for row in rows if plain(row["answer"]) in said), rows[0] if rows else {"answer": pair.good})
    content = " ".join(str(row["answer"]).split()).rstrip(".")
    form = row.get("answer_type") or ("closed" if plain(content) in YES_NO else "open")
    picture = Picture(pair.image, (folder / pair.image).read_bytes)
    return Dev(pair, picture, content, form.lower(), f"{pair.source}/{asked_about(row).lower()}")
