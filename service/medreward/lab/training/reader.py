"""Pictures and texts as a model of a folder reads them, by the server's own rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from medreward.artifacts.manifest import ImageOfOwnSize, Manifest
from medreward.backends.base import Group, ModelImage
from medreward.encoding.image import decode, probe
from medreward.encoding.sizes import ImageSpec, OwnSize
from medreward.encoding.text import FileTokenizer, TextEncoder
from medreward.errors import ConfigurationError
from medreward.lab.training.images import LIMITS, Pixels
from medreward.types import Options, TooLong

CUT: Final = Options(too_long=TooLong.CUT_MIDDLE)
MANY: Final = 10**6


class Reader:
    """What is too long loses its middle. Other faults of a text or picture raise ItemError."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        text, image = manifest.text, manifest.image
        if text.tokenizer is None:
            raise ConfigurationError(f"model {manifest.name} has no tokenizer")
        placeholders = manifest.vlm.image if manifest.vlm else ()
        tokenizer = FileTokenizer(folder / text.tokenizer)
        self._text = TextEncoder(tokenizer, text.prompt, text.answer, text.max_tokens, MANY, placeholders)
        self._size: ImageSpec | OwnSize
        if isinstance(image, ImageOfOwnSize):
            self._size = OwnSize(image.min_pixels, image.max_pixels, image.multiple)
        else:
            self._size = ImageSpec(image.width, image.height, image.fit)

    def fitted(self, data: bytes) -> Pixels:
        """Returns the picture at the model's size."""
        header = probe(data, LIMITS)
        return decode(data, header, self._size.of(header.width, header.height))

    def group(self, image: ModelImage | None, question: str, responses: Sequence[str]) -> Group:
        """Returns one question with its answers, as a backend takes them."""
        prompt = self._text.prompt(question, has_image=image is not None)
        return Group(image, prompt.ids, [self._text.answer(prompt, text, CUT).ids for text in responses])
