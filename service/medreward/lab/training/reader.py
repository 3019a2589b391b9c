"""Pictures and texts as a model of a folder reads them, by the server's own rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import Group, ModelImage
from medreward.encoding.image import decode, probe
from medreward.encoding.text import FileTokenizer, TextEncoder
from medreward.errors import ConfigurationError
from medreward.lab.training.images import LIMITS
from medreward.types import Options, TooLong

CUT: Final = Options(too_long=TooLong.CUT_MIDDLE)
MANY: Final = 10**6


class Reader:
    """What is too long loses its middle. Other faults of a text or picture raise ItemError."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        text = manifest.text
        if text.tokenizer is None:
            raise ConfigurationError(f"model {manifest.name} has no tokenizer")
        placeholders = manifest.vlm.image if manifest.vlm else ()
        tokenizer = FileTokenizer(folder / text.tokenizer)
        self._text = TextEncoder(tokenizer, text.prompt, text.answer, text.max_tokens, MANY, placeholders)
        self._sizes = manifest.image.sizes

    def image(self, digest: str, data: bytes) -> ModelImage:
        """Returns the picture at the model's size, under the digest."""
        header = probe(data, LIMITS)
        spec = self._sizes.of(header.width, header.height)
        return ModelImage(digest, decode(data, header, spec), cut=spec.cut)

    def group(self, image: ModelImage | None, question: str, responses: Sequence[str]) -> Group:
        """Returns one question with its answers, as a backend takes them."""
        prompt = self._text.prompt(question, has_image=image is not None)
        return Group(image, prompt.ids, [self._text.answer(prompt, text, CUT).ids for text in responses])
