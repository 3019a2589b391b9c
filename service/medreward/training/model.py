"""The whole model: tower, scorer, and the asker that the tower learns with and that is not exported."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medreward.training import recipe
from medreward.training.attributes import Asker, Attributes, attribute_loss
from medreward.training.batches import Asked, Batch, PairBatch
from medreward.training.losses import drift_loss, grade_loss, pair_loss
from medreward.training.scorer import Scorer, TextShape
from medreward.training.tokens import Padded, Tokens
from medreward.training.tower import Tower


class Model(nn.Module):
    def __init__(self, settings: recipe.Recipe, text: TextShape, separator: int, answers: int) -> None:
        super().__init__()
        self.tower = Tower(settings.tower, text.width)
        self.scorer = Scorer(text, settings.heads, separator, settings.text.frozen_layers)
        self.asker = Asker(text.width, answers)

    def logits(self, image_tokens: Tensor, row_image: Tensor, row_shown: Tensor, texts: list[Padded]) -> Tensor:
        """Rows in the order of the batch; the image's part of the work is done once an image."""
        seen = self.scorer.see(image_tokens)
        parts, places = [], []
        for text in texts:
            filled = nn.functional.pad(text.rows, (0, len(text.ids) - len(text.rows)))
            image = row_image[filled]
            rows = [(keys[image], values[image]) for keys, values in seen]
            logits = self.scorer.read(rows, row_shown[filled], text.ids, text.mask)
            parts.append(logits[: len(text.rows)])
            places.append(text.rows)
        return torch.cat(parts)[torch.argsort(torch.cat(places))]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Sentence vectors of the questions and answers that the tower learns with."""

    questions: Tensor
    answers: Tensor
    rivals: Tensor


def sentence_vectors(model: Model, attributes: Attributes, tokens: Tokens) -> Vectors:
    return Vectors(
        _vectors(model, attributes.questions, tokens), _vectors(model, attributes.answers, tokens), attributes.rivals
    )


def _vectors(model: Model, texts: list[str], tokens: Tokens) -> Tensor:
    found = torch.zeros(len(texts), model.tower.width)
    with torch.inference_mode():
        for padded in tokens.padded([tokens.sentence(text) for text in texts]):
            for start in range(0, len(padded.rows), 256):
                part = slice(start, min(start + 256, len(padded.rows)))
                found[padded.rows[part]] = model.scorer.sentences(padded.ids[part], padded.mask[part])
    return found.clone()


def asked_loss(model: Model, tokens: Tensor, asked: Asked, vectors: Vectors) -> Tensor:
    logits = model.asker(tokens, asked.image, vectors.questions[asked.questions], vectors.answers)
    return attribute_loss(logits, asked.answers, vectors.rivals[asked.kinds])


def warm_up_loss(model: Model, batch: Batch, vectors: Vectors) -> dict[str, Tensor]:
    return {"attributes": asked_loss(model, model.tower(batch.pictures), batch.asked, vectors)}


def pairs_loss(model: Model, batch: PairBatch, vectors: Vectors, shape: recipe.Pairs) -> dict[str, Tensor]:
    tokens = model.tower(batch.pictures)
    logits = model.logits(tokens, batch.row_image, batch.row_shown, batch.texts)
    losses = {
        "pairs": pair_loss(logits, batch.pairs, batch.better, batch.weights),
        "grades": shape.grade_weight * grade_loss(logits, batch.grades),
        "drift": 0.01 * drift_loss(logits),
    }
    if shape.attribute_weight and len(batch.asked.image):
        losses["attributes"] = shape.attribute_weight * asked_loss(model, tokens, batch.asked, vectors)
    return losses
