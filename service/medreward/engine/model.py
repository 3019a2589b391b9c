"""A model ready to be served: its manifest, its text and image rules, its backend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medreward.artifacts.golden import GoldenTriple, read_golden
from medreward.artifacts.manifest import Manifest
from medreward.artifacts.repository import open_verified
from medreward.backends.base import Backend
from medreward.backends.fake import FAKE_MANIFEST, FakeBackend, WordTokenizer
from medreward.backends.onnx import OnnxBackend
from medreward.encoding.image import ImageSpec
from medreward.encoding.text import FileTokenizer, TextEncoder, Tokenizer
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, ModelRef


@dataclass(frozen=True)
class Model:
    manifest: Manifest
    backend: Backend
    text: TextEncoder
    golden: Sequence[GoldenTriple] = ()
    card: str | None = None

    @property
    def ref(self) -> ModelRef:
        m = self.manifest
        return ModelRef(m.name, m.version, m.fingerprint, self.backend.runtime, m.evidence)

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(self.manifest.image.width, self.manifest.image.height, self.manifest.image.fit)

    @property
    def default_weights(self) -> Mapping[str, float]:
        return {dimension: self.manifest.weights.get(dimension, 0.0) for dimension in DIMENSIONS}


def open_model(settings: Settings) -> Model:
    """Reads, verifies and loads what `settings.model` names; slow, runs once."""
    if settings.model == "fake":
        return _assemble(FAKE_MANIFEST, FakeBackend(settings.fake_delay_ms / 1000), WordTokenizer(), settings)
    folder, manifest = open_verified(settings.model, settings.models_dir)
    if manifest.onnx is None or manifest.text.tokenizer is None:
        raise ConfigurationError(f"model {manifest.name} names no graphs or no tokenizer")
    backend = OnnxBackend(folder, manifest, settings.device, settings.threads)
    return _assemble(manifest, backend, FileTokenizer(folder / manifest.text.tokenizer), settings, folder)


def _assemble(
    manifest: Manifest, backend: Backend, tokenizer: Tokenizer, settings: Settings, folder: Path = Path()
) -> Model:
    text = TextEncoder(
        tokenizer, manifest.text.prompt, manifest.text.answer, manifest.text.max_tokens, settings.text_chars
    )
    golden = read_golden(folder / manifest.golden) if manifest.golden else ()
    card = (folder / manifest.card).read_text("utf-8") if manifest.card else None
    return Model(manifest, backend, text, golden, card)
