"""The whole model: tower and scorer, and what each phase of the training asks of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medreward.lab.training import recipe
from medreward.lab.training.attributes import WAYS, Attributes, attribute_loss
from medreward.lab.training.batches import Asked, Batch, PairBatch
from medreward.lab.training.losses import drift_loss, grade_loss, hold_loss, pair_loss
from medreward.lab.training.scorer import SHARPNESS, Scorer, TextShape, mean
from medreward.lab.training.tokens import Padded, Tokens
from medreward.lab.training.tower import Tower, fold_norms
from medreward.lab.training.wording import form

NOTHING = "."  # in place of the part that is not looked at


class Model(nn.Module):
    def __init__(self, settings: recipe.Recipe, text: TextShape, separator: int) -> None:
        super().__init__()
        self.tower = Tower(settings.tower, text.width)
        if settings.start and not settings.tower.start:
            fold_norms(self.tower)  # a served model holds it so
        self.scorer = Scorer(text, separator, settings.text.frozen_layers)

    def logits(self, image_tokens: Tensor, row_image: Tensor, row_shown: Tensor, texts: list[Padded]) -> Tensor:
        """Returns [rows, dimensions] in the order of the batch; the image's part of the work is done once an image."""
        seen = self.scorer.see(image_tokens)
        parts, places = [], []
        for text in texts:
            filled = nn.functional.pad(text.rows, (0, len(text.ids) - len(text.rows)))
            image = row_image[filled]
            rows = [(keys[image], values[image]) for keys, values in seen]
            logits, _ = self.scorer.read(rows, row_shown[filled], text.ids, text.mask)
            parts.append(logits[: len(text.rows)])
            places.append(text.rows)
        return torch.cat(parts)[torch.argsort(torch.cat(places))]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Holds what the frozen layers make of the questions and answers that the tower learns with."""

    questions: Tensor
    answers: Tensor  # [ways of saying them, answers, width]
    rivals: Tensor


def attribute_vectors(model: Model, attributes: Attributes, tokens: Tokens, seed: int) -> Vectors:
    dice = np.random.default_rng(seed)
    answers = attributes.answers
    ways = [answers, *([form(dice).replace("{}", text) for text in answers] for _ in range(WAYS))]
    return Vectors(
        _vectors(model, [tokens.row(text, NOTHING) for text in attributes.questions], tokens)[0],
        torch.stack([_vectors(model, [tokens.row(NOTHING, text) for text in way], tokens)[1] for way in ways]),
        attributes.rivals,
    )


def _vectors(model: Model, rows: list[list[int]], tokens: Tokens) -> Tensor:
    """Returns the vectors of questions and of answers: [2, rows, width]."""
    found = torch.zeros(2, len(rows), model.tower.width)
    with torch.inference_mode():
        for padded in tokens.padded(rows):
            for start in range(0, len(padded.rows), 256):
                part = slice(start, min(start + 256, len(padded.rows)))
                text, answer = model.scorer.split(padded.ids[part], padded.mask[part])
                x = model.scorer.read_apart(padded.ids[part], text, answer)
                found[:, padded.rows[part]] = torch.stack([mean(x, text - answer), mean(x, answer)])
    return found.clone()


def asked_loss(model: Model, tokens: Tensor, asked: Asked, vectors: Vectors) -> Tensor:
    asker = model.scorer.asker
    keys, values = asker.see(tokens)
    guess = asker((keys[asked.image], values[asked.image]), vectors.questions[asked.questions])
    named = asker.named(vectors.answers[asked.way])
    return attribute_loss(SHARPNESS / guess.shape[1] * guess @ named.T, asked.answers, vectors.rivals[asked.kinds])


def warm_up_loss(model: Model, batch: Batch, vectors: Vectors) -> dict[str, Tensor]:
    tokens = model.tower.finish(batch.pictures)
    losses = {"attributes": asked_loss(model, tokens, batch.asked, vectors)}
    if batch.shown_to_teacher is not None:  # a scorer that goes on is to find what it knows how to read
        losses["tokens"] = nn.functional.smooth_l1_loss(tokens, batch.shown_to_teacher.to(torch.float32))
    return losses


@dataclass(frozen=True, slots=True)
class Teacher:
    """The model that a run started from, whose scores of plain answers are kept to."""

    model: Model
    scale: Tensor  # the usual spread of its logits, by dimension
    weights: Tensor

    def loss(self, logits: Tensor, batch: PairBatch) -> Tensor:
        assert batch.taught
        with torch.no_grad():
            asked = batch.taught
            told = self.model.logits(asked.pictures.to(torch.float32), asked.row_image, asked.row_shown, asked.texts)
        return hold_loss(logits[asked.rows] / self.scale, told[asked.told] / self.scale - asked.less, self.weights)


def pairs_loss(
    model: Model, batch: PairBatch, vectors: Vectors | None, shape: recipe.Pairs, teacher: Teacher | None = None
) -> dict[str, Tensor]:
    tokens = model.tower.finish(batch.pictures)
    logits = model.logits(tokens, batch.row_image, batch.row_shown, batch.texts)
    losses = {
        "pairs": pair_loss(logits, batch.pairs, batch.better, batch.weights),
        "grades": shape.grade_weight * grade_loss(logits, batch.grades),
        "drift": 0.01 * drift_loss(logits),
    }
    if teacher:
        losses["hold"] = teacher.loss(logits, batch)
    if vectors and shape.attribute_weight and len(batch.asked.image):
        losses["attributes"] = shape.attribute_weight * asked_loss(model, tokens, batch.asked, vectors)
    return losses
