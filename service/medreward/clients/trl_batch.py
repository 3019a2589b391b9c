"""Finds in a trainer's batch what is to be scored: the images, the questions and the responses."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from medreward.clients.groups import Triple
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
    """Where images and questions are looked for. Raises ValueError where a prompt shows an image that is not found."""

    def __init__(self, image: str | None, question: str | None, allow_text_only: bool) -> None:
        self._image = image
        self._question = question
        self._allow_text_only = allow_text_only
        self._warned = False

    def triples(
        self, prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any], pictures: "Pictures"
    ) -> list[Triple | Score]:
        """A Score where something is wrong before anything could be asked."""
        questions = _column(columns, self._question) if self._question else map(_question, prompts)
        images = self._images(prompts, columns)
        if not self._allow_text_only:
            self._miss_images(prompts, images, columns)
        pictures.start_batch()
        return [
            _triple(pictures, found, question, _response(completion))
            for found, question, completion in zip(images, questions, completions, strict=True)
        ]

    def _images(self, prompts: Sequence[Text], columns: Mapping[str, Any]) -> list[list[ImageLike]]:
        """Those of a row's column; where there are none, those that the prompt itself holds."""
        name = self._image or next((name for name in IMAGE_COLUMNS if name in columns), None)
        values = _column(columns, name) if name else [None] * len(prompts)
        return [_listed(value) or _images_in(prompt) for value, prompt in zip(values, prompts, strict=True)]

    def _miss_images(
        self, prompts: Sequence[Text], images: Sequence[Sequence[ImageLike]], columns: Mapping[str, Any]
    ) -> None:
        """Says so, once, where a whole batch has no image; stops the run where one must have been lost."""
        lost = [i for i, prompt in enumerate(prompts) if not images[i] and _shows_image(prompt)]
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
    """Images as files. A batch has many copies of an image, and six functions ask for each: pixels are written once."""

    def __init__(self) -> None:
        self._files: dict[Hashable, bytes | None] = {}
        self._earlier: dict[Hashable, bytes | None] = {}

    def start_batch(self) -> None:
        self._earlier, self._files = self._files, {}

    def file(self, image: ImageLike) -> bytes | str | None:
        """Raises OSError, SyntaxError or ValueError for an image that cannot be read."""
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            return image
        pixels = _pixels(image)
        if pixels is None:
            return image_bytes(image)
        if pixels not in self._files:
            self._files[pixels] = self._earlier[pixels] if pixels in self._earlier else image_bytes(image)
        return self._files[pixels]


def _pixels(image: Any) -> Hashable:
    """What decides the file that is made of an array or a PIL image; None for what is a file already."""
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


def _listed(value: Any) -> list[ImageLike]:
    if isinstance(value, list | tuple):
        return [image for image in value if image is not None]
    return [] if value is None else [value]


def _parts(prompt: Text) -> list[Mapping[str, Any]]:
    if isinstance(prompt, str):
        return []
    return [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]


def _images_in(prompt: Text) -> list[ImageLike]:
    """Images, and paths or addresses of images, under the names that chat templates read."""
    parts = [part for part in _parts(prompt) if part["type"] == "image"]
    held = [[part[key] for key in ("image", "url", "path") if part.get(key) is not None] for part in parts]
    return [images[0] for images in held if images]


def _shows_image(prompt: Text) -> bool:
    return any(part["type"] in IMAGE_PARTS for part in _parts(prompt))


def _question(prompt: Text) -> str:
    return prompt if isinstance(prompt, str) else _last(prompt, "user")


def _response(completion: Text) -> str:
    return completion if isinstance(completion, str) else _last(completion, "assistant")


def _last(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text of that role's last turn."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == role), None)
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""
