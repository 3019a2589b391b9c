"""Finds in a trainer's batch what has to be scored: the images, the questions and the responses."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from medreward.clients.calls import Triple
from medreward.clients.images import ImageLike
from medreward.clients.rows import (
    Pictures,
    Text,
    images_in,
    listed,
    one_triple,
    question_in,
    response_in,
    shows_image,
    turns_in,
)
from medreward.clients.score import Score

IMAGE_COLUMNS: Final = ("images", "image")  # in the order in which TRL looks for them
#: What TRL passes to a reward function beside the data set's columns.
TRLS_OWN: Final = frozenset({"completion_ids", "trainer_state", "log_extra", "log_metric", "environments"})

log = logging.getLogger(__name__)


class Columns:
    """Knows where images and questions are looked for."""

    def __init__(self, image: str | None, question: str | None, allow_text_only: bool) -> None:
        self._image = image
        self._question = question
        self._allow_text_only = allow_text_only
        self._warned = False

    def triples(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any], pictures: Pictures
    ) -> list[Triple | Score]:
        """Returns a triple for each row, or a Score with an error for a row that cannot be asked.

        Raises ValueError for a column that is not there, and for a prompt that shows an image which is not found.
        """
        questions = _column(columns, self._question) if self._question else map(question_in, prompts)
        images = self._images(prompts, columns)
        turns = [() if self._question else turns_in(*each) for each in zip(prompts, map(len, images), strict=True)]
        if not self._allow_text_only:
            self._check_images(prompts, images, columns)
        pictures.start_batch()
        return [
            one_triple(pictures, found, question, response_in(completion), before)
            for found, question, completion, before in zip(images, questions, completions, turns, strict=True)
        ]

    def _images(self, prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[list[ImageLike]]:
        """Returns each row's images: those of its column, or else those that the prompt itself holds."""
        name = self._image or next((name for name in IMAGE_COLUMNS if name in columns), None)
        values = _column(columns, name) if name else [None] * len(prompts)
        return [listed(value) or images_in(prompt) for value, prompt in zip(values, prompts, strict=True)]

    def _check_images(
        self, prompts: Sequence[Text], images: Sequence[Sequence[ImageLike]], columns: Mapping[str, Any]
    ) -> None:
        """Warns once where a whole batch has no image; raises ValueError where a prompt shows one that was not
        found.
        """
        lost = [i for i, prompt in enumerate(prompts) if not images[i] and shows_image(prompt)]
        if not lost and (any(images) or self._warned):
            return
        looked = f"the column {self._image}" if self._image else f"the columns {' and '.join(IMAGE_COLUMNS)}"
        there = ", ".join(sorted(columns.keys() - TRLS_OWN)) or "none beside prompt and completion"
        how = (
            f"Looked in: {looked}, and image parts of the prompt that hold an image. The data set's columns: {there}. "
            "Name the right one with image_column=…"
        )
        if lost:
            raise ValueError(
                f"the prompt of row {lost[0]} shows an image, but no image was found to score its answer with. {how}, "
                "or give allow_text_only=True to score such rows without their image"
            )
        self._warned = True
        log.warning(
            "no image was found: responses are scored as answers to questions without one. %s; if no images are meant, "
            "allow_text_only=True ends this warning",
            how,
        )


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        there = ", ".join(sorted(columns.keys() - TRLS_OWN)) or "none"
        raise ValueError(f"the data set has no column {name!r}; its columns: {there}")
    return columns[name]
