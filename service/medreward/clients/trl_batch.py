"""Finds in a trainer's batch what has to be scored: the images, the questions and the responses."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from medreward.clients.calls import Triple
from medreward.clients.images import ImageLike, image_bytes
from medreward.clients.score import Score
from medreward.errors import Code

IMAGE_COLUMNS: Final = ("images", "image")  # in the order in which TRL looks for them
IMAGE_PARTS: Final = ("image", "image_url", "input_image")  # of a message's content
#: What TRL passes to a reward function beside the data set's columns.
TRLS_OWN: Final = frozenset({"completion_ids", "trainer_state", "log_extra", "log_metric", "environments"})

log = logging.getLogger(__name__)

Text: TypeAlias = str | Sequence[Mapping[str, Any]]  # plain, or messages of a conversation


class Columns:
    """Knows where images and questions are looked for."""

    def __init__(self, image: str | None, question: str | None, allow_text_only: bool) -> None:
        self._image = image
        self._question = question
        self._allow_text_only = allow_text_only
        self._warned = False

    def triples(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any], pictures: "Pictures"
    ) -> list[Triple | Score]:
        """Returns a triple for each row, or a Score with an error for a row that cannot be asked.

        Raises ValueError for a column that is not there, and for a prompt that shows an image which is not found.
        """
        questions = (
            _column(columns, self._question) if self._question else [_last(prompt, "user") for prompt in prompts]
        )
        name = self._image or next((name for name in IMAGE_COLUMNS if name in columns), None)
        values = _column(columns, name) if name else [None] * len(prompts)
        images = [_images(value, prompt) for value, prompt in zip(values, prompts, strict=True)]
        if not self._allow_text_only:
            self._check_images(prompts, images, columns)
        pictures.start_batch()
        return [
            _triple(pictures, of_row, question, _last(completion, "assistant"))
            for of_row, question, completion in zip(images, questions, completions, strict=True)
        ]

    def _check_images(
        self, prompts: Sequence[Text], images: Sequence[Sequence[ImageLike]], columns: Mapping[str, Any]
    ) -> None:
        """Warns once where a whole batch has no image; raises ValueError where a prompt shows one that was not
        found.
        """
        show_one = [any(part["type"] in IMAGE_PARTS for part in _parts(prompt)) for prompt in prompts]
        lost = [i for i, shows in enumerate(show_one) if shows and not images[i]]
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


class Pictures:
    """Makes files of images. A batch has many copies of an image, and six functions ask for each, so pixels are written
    once.
    """

    def __init__(self) -> None:
        self._files: dict[Hashable, bytes | None] = {}
        self._earlier: dict[Hashable, bytes | None] = {}

    def start_batch(self) -> None:
        """Forgets the files of the batch before the last one."""
        self._earlier, self._files = self._files, {}

    def file(self, image: ImageLike) -> bytes | str | None:
        """Returns the bytes of a file, or a URL as it is. Raises OSError, SyntaxError or ValueError for an unreadable
        image.
        """
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            return image
        pixels = _pixels(image)
        if pixels is None:
            return image_bytes(image)
        if pixels not in self._files:
            self._files[pixels] = self._earlier[pixels] if pixels in self._earlier else image_bytes(image)
        return self._files[pixels]


def _pixels(image: Any) -> Hashable:
    """Returns what decides the file that is made of an array or a PIL image; None for what is a file already."""
    if hasattr(image, "getpalette"):
        about = repr(sorted(image.info.items(), key=str)), image.getexif().get(0x0112)  # how it is turned
        return image.mode, image.size, about, repr(image.getpalette()), image.tobytes()
    if hasattr(image, "__array_interface__"):
        return str(image.dtype), image.shape, image.tobytes()
    return None


def _triple(pictures: Pictures, images: Sequence[ImageLike], question: str, response: str) -> Triple | Score:
    if len(images) > 1:
        return Score(error=Code.UNSUPPORTED_FIELD, message="the row has more than one image")
    try:
        return Triple(pictures.file(images[0]) if images else None, question, response)
    except (OSError, SyntaxError, ValueError) as error:  # the second from Pillow, of broken PNG files
        return Score(error=Code.IMAGE_INVALID, message=str(error))


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        there = ", ".join(sorted(columns.keys() - TRLS_OWN)) or "none"
        raise ValueError(f"the data set has no column {name!r}; its columns: {there}")
    return columns[name]


def _parts(prompt: Text) -> list[Mapping[str, Any]]:
    if isinstance(prompt, str):
        return []
    return [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]


def _images(cell: Any, prompt: Text) -> list[ImageLike]:
    """Returns the images of a row: those in the cell of its column, which may be a list, or else those in its prompt.

    A prompt's are images, paths or addresses, under the names that chat templates read.
    """
    if images := [image for image in (cell if isinstance(cell, list | tuple) else [cell]) if image is not None]:
        return images
    parts = [part for part in _parts(prompt) if part["type"] == "image"]
    values = [[part[key] for key in ("image", "url", "path") if part.get(key) is not None] for part in parts]
    return [of_part[0] for of_part in values if of_part]


def _last(text: Text, role: str) -> str:
    """Returns a plain text as it is, and of a conversation the text of that role's last turn; empty where it has
    none.
    """
    if isinstance(text, str):
        return text
    content = next((message.get("content") for message in reversed(text) if message["role"] == role), None)
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""
