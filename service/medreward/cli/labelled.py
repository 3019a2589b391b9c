"""Labelled answers of a JSONL or Parquet file, and their scores."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from medreward.bench.cases import CONSTRUCTED
from medreward.bench.screening.answers import NOT_STATED, Answer
from medreward.cli.rows import ITEM, ItemShape, Row, is_parquet, read_images, read_item, read_rows
from medreward.clients import AsyncClient, Triple
from medreward.clients.errors import is_server_away
from medreward.clients.images import File, Source
from medreward.clients.score import Score
from medreward.errors import ITEM_CODES, Code, ConfigurationError, ItemError, MedRewardError
from medreward.types import DIMENSIONS, Failed, Flag, Result, Scored

LABELS: Final = ("right", "label")
SIDES: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("right", "correct", "true", "1"), True),
    **dict.fromkeys(("wrong", "incorrect", "false", "0"), False),
}
PAIR: Final = ("good", "bad")
#: Names of what an answer belongs to, each with what data sets call it.
PARTS: Final[Mapping[str, Sequence[str]]] = {
    "department": ("department",),
    "organ": ("organ", "region13", "modality_type"),
    "set": ("set", "dataset"),
}
COLUMNS: Final = (*ITEM, *LABELS, *PAIR, "kind", "group", "evidence", *(n for names in PARTS.values() for n in names))
CHUNK: Final = 256  # answers whose images are held at once
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row's answer and its label; None where the row has none."""

    where: str
    item: ItemShape
    response: str
    right: bool | None
    group: str | None
    parts: Mapping[str, str]
    evidence: str

    def answer(self, image: Source, result: Result) -> Answer:
        """Returns the answer with its scores. It belongs to its group, by default to its image, else its question."""
        group = self.group or (image.sha256 if isinstance(image, File) else f"{image or self.item.question}")
        department, organ, set_ = (self.parts[part] for part in PARTS)
        return Answer(
            self.right is True,
            group,
            self.item.question,
            self.response,
            result,
            department,
            organ,
            set_,
            self.evidence,
        )


def read_labelled(path: Path, kinds: Collection[str], *, unlabelled: bool = False) -> Iterator[Labelled]:
    """Gives the answers of a file. A row has one response and its label, or is a pair of a good and a bad answer.

    Raises ConfigurationError, which names the line, where a row is neither; with `unlabelled` a label may lack.
    """
    for where, fields in _rows(path):
        try:
            yield from _answers(where, fields, kinds, unlabelled)
        except MedRewardError as error:
            raise ConfigurationError(f"{where}: {error.detail}{f' ({error.field})' if error.field else ''}") from None


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Gives each row with the place that an error names: the line of a text, the row of a table."""
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    lines: Iterator[int] = iter(())
    if not is_parquet(path):
        with path.open("rb") as file:
            lines = iter([number for number, line in enumerate(file, 1) if not line.isspace()])
    for row in read_rows(path, columns=COLUMNS):
        where = f"{path}, row {row.number + 1}" if is_parquet(path) else f"{path}, line {next(lines)}"
        if row.fields is None:
            raise ConfigurationError(f"{where}: this is no JSON object")
        yield where, {name: value for name, value in row.fields.items() if value is not None}


def _answers(where: str, fields: Mapping[str, Any], kinds: Collection[str], unlabelled: bool) -> Iterator[Labelled]:
    is_pair = all(name in fields for name in PAIR)
    if is_pair and "kind" in fields and ALL not in kinds and fields["kind"] not in kinds:
        return
    sides = [(fields["good"], True), (fields["bad"], False)] if is_pair else [(None, _side(where, fields, unlabelled))]
    parts = {part: next((str(fields[n]) for n in names if n in fields), "") for part, names in PARTS.items()}
    evidence = str(fields.get("evidence") or (CONSTRUCTED if is_pair else NOT_STATED))
    group = str(fields["group"]) if "group" in fields else None
    for response, right in sides:
        asked = {name: fields[name] for name in ITEM if name in fields}
        item = read_item(Row(0, asked if response is None else {**asked, "response": response}))
        if len(item.texts) != 1:
            raise ConfigurationError(f"{where}: a labelled row has one response")
        yield Labelled(where, item, item.texts[0], right, group, parts, evidence)


def _side(where: str, fields: Mapping[str, Any], unlabelled: bool) -> bool | None:
    """Returns whether the answer is labelled right; None without a label, where that is allowed."""
    given = [name for name in LABELS if name in fields]
    if not given and unlabelled:
        return None
    if len(given) != 1:
        raise ConfigurationError(f"{where}: a row needs `right` (true or false), or `label` (right or wrong)")
    side = SIDES.get(str(fields[given[0]]).strip().lower())
    if side is None:
        raise ConfigurationError(f"{where}: `{given[0]}` is neither right nor wrong: write true or false")
    return side


@dataclass(frozen=True, slots=True)
class Reader:
    """Scores the answers of labelled files with one client and the same options for all."""

    client: AsyncClient
    options: Mapping[str, Any]
    kinds: Collection[str]

    async def read(
        self, path: Path, progress: Callable[[int, int], None], *, unlabelled: bool = False
    ) -> list[tuple[Labelled, Answer]]:
        """Returns each answer of the file with its scores. The whole file is checked before anything is scored.

        Raises ConfigurationError where a row cannot be read, and where the server goes away.
        """
        total = sum(1 for _ in read_labelled(path, self.kinds, unlabelled=unlabelled))
        if not total:
            kinds = f" of kind {', '.join(self.kinds)} (see --kinds)" if self.kinds else ""
            raise ConfigurationError(f"{path} has no labelled answers{kinds}")
        answers: list[tuple[Labelled, Answer]] = []
        async for chunk in self._chunks(path, unlabelled):
            answers += chunk
            progress(len(answers), total)
        return answers

    async def _chunks(self, path: Path, unlabelled: bool) -> AsyncIterator[list[tuple[Labelled, Answer]]]:
        rows = read_labelled(path, self.kinds, unlabelled=unlabelled)
        while chunk := list(islice(rows, CHUNK)):
            images = await asyncio.to_thread(_images, chunk, path.parent)
            triples = [
                Triple(own, one.item.question, one.response, tuple(one.item.turns))
                for one, own in zip(chunk, images, strict=True)
            ]
            scores = await self.client.score_many(triples, **self.options)
            for score in scores:
                if score.error and is_server_away(score.error):
                    raise ConfigurationError(f"{score.error}: {score.message}")
            scored = zip(chunk, images, scores, strict=True)
            yield [(one, one.answer(own[0] if own else None, result_of(score))) for one, own, score in scored]


def _images(chunk: Sequence[Labelled], folder: Path) -> list[list[Source]]:
    images = []
    for one in chunk:
        try:
            images.append(read_images(one.item, folder))
        except MedRewardError as error:
            raise ConfigurationError(f"{one.where}: {error.detail}") from None
    return images


def result_of(score: Score) -> Result:
    """Returns a client's score as the engine has it, which is what a policy decides on."""
    flags = tuple(flag for flag in Flag if flag in score.flags)
    if score.error or score.logits is None or score.scores is None:
        code = Code(score.error) if score.error in ITEM_CODES else Code.INTERNAL
        return Failed(0, 0, ItemError(code, score.message or "", score.field or ""), flags)
    logits, scores = (tuple(six[name] for name in DIMENSIONS) for six in (score.logits, score.scores))
    uncertainty = tuple(score.uncertainty[name] for name in DIMENSIONS) if score.uncertainty else None
    return Scored(0, 0, logits, scores, uncertainty, score.reward, flags)
