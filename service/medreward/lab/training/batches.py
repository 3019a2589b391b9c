"""Batches made from a seed and a step, so that a run that stopped goes on with the very batches it would have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from medreward.lab.training import recipe
from medreward.lab.training.attributes import WAYS, Attributes
from medreward.lab.training.cases import Case
from medreward.lab.training.grades import Group
from medreward.lab.training.groups import Builder
from medreward.lab.training.images import Images, shaken
from medreward.lab.training.library import Library
from medreward.lab.training.looks import Looks
from medreward.lab.training.texts import Texts
from medreward.lab.training.tokens import Padded, Tokens

LENGTHS, PADDING, CONFIRM = 0.06, 0.14, 0.12  # shares of the groups that are about them


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions that the tower is asked, with their answers."""

    image: Tensor
    questions: Tensor
    answers: Tensor
    kinds: Tensor
    way: int  # of saying the answers


@dataclass(frozen=True, slots=True)
class Batch:
    pictures: Tensor
    asked: Asked
    shown_to_teacher: Tensor | None = None  # what a teacher's tower makes of the pictures


@dataclass(frozen=True, slots=True)
class PairBatch:
    pictures: Tensor
    asked: Asked
    row_image: Tensor  # a picture of the batch; 0 where there is none
    row_shown: Tensor  # 1.0 where there is one
    texts: list[Padded]
    pairs: Tensor
    better: Tensor
    weights: Tensor
    grades: Tensor  # NaN where not given
    taught: "Taught | None" = None


@dataclass(frozen=True, slots=True)
class Taught:
    """Holds what a teacher is asked about a batch."""

    pictures: Tensor  # as its own tower sees them
    row_image: Tensor
    row_shown: Tensor
    texts: list[Padded]
    rows: Tensor  # of the batch, that it tells something of
    told: Tensor  # by which of its own rows
    less: Tensor  # than what it says


class Batches:
    def __init__(
        self, settings: recipe.Recipe, library: Library, exact: Sequence[Group], texts: Texts, images: Images | Looks,
        attributes: Attributes, tokens: Tokens, teacher: Looks | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._library = library
        self._exact = exact  # groups whose grades were given with them
        self._texts = texts
        self._images = images
        self._attributes = attributes
        self._tokens = tokens
        self._teacher = teacher  # what its tower makes of the images

    def warm_up(self, step: int) -> Batch:
        dice = self._dice(0, step)
        shape = self._settings.warm_up
        names: dict[str, None] = {}
        while len(names) < shape.images:
            names[self._library.any_case(dice).image] = None
        known = torch.from_numpy(self._teacher.first_view(list(names))) if self._teacher else None
        return Batch(self._pictures(list(names), 0, step, dice), self._asked(list(names), shape.questions, dice), known)

    def pairs(self, step: int) -> PairBatch:
        dice = self._dice(1, step)
        shape = self._settings.pairs
        groups = self._groups(dice)
        names = sorted({group.image for group in groups if group.image})
        place = {name: index for index, name in enumerate(names)}
        rows: list[list[int]] = []
        row_image: list[int] = []
        shown: list[float] = []
        pairs, better, weights, given = [], [], [], []
        asked: dict[tuple[int, str], tuple[list[int], int, float]] = {}  # of a teacher: by group and text
        told: list[tuple[int, tuple[int, str], float]] = []
        for number, group in enumerate(groups):
            blank = group.image is None or dice.random() < shape.blanks
            first = len(rows)
            graded = np.array([answer.grades for answer in group.answers], np.float32)  # None becomes NaN
            for answer in group.answers:
                rows.append(self._tokens.row(group.question, answer.text))
                row_image.append(place[group.image] if group.image else 0)
                if answer.taught:
                    key = number, answer.text if answer.like is None else answer.like
                    told.append((len(shown), key, answer.less))
                    asked[key] = self._tokens.row(group.question, key[1]), row_image[-1], 0.0 if blank else 1.0
                shown.append(0.0 if blank else 1.0)
            given.append(graded if group.exact and not blank else np.full_like(graded, np.nan))
            for a, b in combinations(range(len(group.answers)), 2):
                pairs.append((first + a, first + b))
                better.append(graded[a] - graded[b])
                weights.append(2.0 / len(group.answers))
        return PairBatch(
            pictures=self._pictures(names, 1, step, dice),
            asked=self._asked(names, 4, dice),
            row_image=torch.tensor(row_image),
            row_shown=torch.tensor(shown),
            texts=self._tokens.padded(rows),
            pairs=torch.tensor(pairs),
            better=torch.from_numpy(np.stack(better)),
            weights=torch.tensor(weights),
            grades=torch.from_numpy(np.concatenate(given)),
            taught=self._taught(names, asked, told) if self._teacher else None,
        )

    def _taught(
        self,
        names: Sequence[str],
        asked: dict[tuple[int, str], tuple[list[int], int, float]],
        told: Sequence[tuple[int, tuple[int, str], float]],
    ) -> Taught:
        assert self._teacher
        place = {key: row for row, key in enumerate(asked)}
        texts, image, shown = zip(*asked.values(), strict=True)
        rows, keys, less = zip(*told, strict=True)
        return Taught(
            pictures=torch.from_numpy(self._teacher.first_view(names)),
            row_image=torch.tensor(image),
            row_shown=torch.tensor(shown),
            texts=self._tokens.padded(texts),
            rows=torch.tensor(rows),
            told=torch.tensor([place[key] for key in keys]),
            less=torch.tensor(less)[:, None],
        )

    def _groups(self, dice: Generator) -> list[Group]:
        shape = self._settings.pairs
        builder = Builder(self._library, dice, self._texts.asides)
        groups: list[Group] = []
        names: set[str | None] = set()
        if self._exact:
            chosen = dice.integers(len(self._exact), size=max(1, shape.images // 6))
            groups += [self._exact[place] for place in chosen]
            names |= {group.image for group in groups}
        while len(names) < shape.images:  # always as many, as every new shape costs the runtime a new kernel
            case = self._library.any_case(dice)
            about = [case]
            other = self._library.twin(case, dice) if len(names) < shape.images - 1 else None
            if other is not None:
                about.append(other)
                if dice.random() < shape.swaps:
                    groups += builder.twins(case, other)
            for subject in about:
                names.add(subject.image)
                asked = self._library.by_image[subject.image]
                groups += [
                    self._one(builder, asked[dice.integers(len(asked))]) for _ in range(max(1, shape.questions - 1))
                ]
        if self._texts:
            groups += [self._texts.group(dice) for _ in range(dice.poisson(shape.texts * len(groups)))]
        return groups

    def _one(self, builder: Builder, case: Case) -> Group:
        roll = builder.dice.random()
        for share, make in (
            (self._settings.pairs.manner, builder.manner),
            (self._settings.pairs.hacks, builder.tricks),
            (self._settings.pairs.forms, builder.forms),
            (LENGTHS, builder.lengths),
            (PADDING, builder.padding),
        ):
            if roll < share:
                return make(case)
            roll -= share
        return builder.confirm(case) if roll < CONFIRM else builder.decide(case)

    def _asked(self, names: Sequence[str], count: int, dice: Generator) -> Asked:
        image: list[int] = []
        cases: list[Case] = []
        for place, name in enumerate(names):
            about = self._library.by_image.get(name, [])
            for index in dice.permutation(len(about))[:count]:
                image.append(place)
                cases.append(about[index])
        rows = torch.from_numpy(self._attributes.rows(cases))
        way = int(dice.integers(WAYS + 1))
        return Asked(torch.tensor(image, dtype=torch.int64), rows[:, 0], rows[:, 1], rows[:, 2], way)

    def _pictures(self, names: Sequence[str], phase: int, step: int, dice: Generator) -> Tensor:
        """Returns the pictures, or what was made of them; half are mirrored where nothing said of them names a side."""
        if isinstance(self._images, Looks):
            return torch.from_numpy(self._images.any_view(names, dice))
        mirrored = [name in self._library.sideless and bool(dice.random() < 0.5) for name in names]
        return torch.from_numpy(shaken(self._images[names], mirrored, [self._settings.seed, phase, step, 1]))

    def _dice(self, phase: int, step: int) -> Generator:
        return np.random.default_rng([self._settings.seed, phase, step])
