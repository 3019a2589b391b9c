"""A model as the front knows it: its manifest and its rules for texts and images. Its backend is loaded where it
runs.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from medreward.artifacts.evidence import require_evidence
from medreward.artifacts.golden import GoldenTriple, read_golden
from medreward.artifacts.manifest import Manifest
from medreward.encoding.sizes import ImageSpec, OwnSize
from medreward.encoding.text import FileTokenizer, TextEncoder, Tokenizer, TurnTemplate
from medreward.encoding.tiles import Tiles
from medreward.engine.files import open_verified
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import DIMENSIONS, ModelRef, Runtime

log = logging.getLogger("medreward")


@dataclass(frozen=True)
class Model:
    """A verified model, without its backend."""

    manifest: Manifest
    text: TextEncoder
    folder: Path | None = None
    golden: Sequence[GoldenTriple] = ()
    card: str | None = None
    verified_at: int = 0  # ns: files touched since then are no longer known to be the right ones

    def ref(self, runtime: Runtime) -> ModelRef:
        """Returns how replies name this model when it runs in this runtime."""
        m = self.manifest
        return ModelRef(m.name, m.version, m.fingerprint, runtime, m.evidence)

    @property
    def reads_turns(self) -> bool:
        """Whether the model reads turns before the question."""
        return self.manifest.text.turns is not None

    @property
    def reads_system(self) -> bool:
        """Whether the model reads a system turn at the beginning of them."""
        turns = self.manifest.text.turns
        return turns is not None and bool(turns.system)

    @property
    def reads_images(self) -> bool:
        """Whether the model reads several images at a time."""
        return self.manifest.vlm is not None

    @cached_property
    def image(self) -> ImageSpec | OwnSize | Tiles:
        """The size, or the rule for sizes, at which the model sees images."""
        return self.manifest.image.sizes

    @property
    def heeds_other_images(self) -> bool:
        """Whether the model sees an image otherwise where it reads others with it."""
        return isinstance(self.image, Tiles) and self.image.heeds_others

    @cached_property
    def default_weights(self) -> Mapping[str, float]:
        """The weights of a request that gives none, one for each of the six dimensions."""
        return {dimension: self.manifest.weights.get(dimension, 0.0) for dimension in DIMENSIONS}


def open_model(settings: Settings) -> Model:
    """Returns what `settings.model` names, read and verified; it takes long and is called once.

    Fails with a ConfigurationError for a model that is not there, is not whole or lacks the evidence it must have.
    """
    if settings.model == "fake":
        if settings.require_evidence is not None:
            raise ConfigurationError("the fake model has no evidence: --require-evidence refuses it")
        from medreward.backends.fake import FAKE_MANIFEST, WordTokenizer  # a test double: nobody else needs it

        return _assemble(FAKE_MANIFEST, WordTokenizer(), settings)
    started = time.time_ns()
    folder, manifest = open_verified(settings)
    if settings.require_evidence is not None:
        used = require_evidence(folder, manifest.fingerprint, settings.require_evidence)
        about = {name: value for name, value in asdict(used).items() if name != "file"}
        log.info("evidence", extra={"file": str(used.file), "policy": settings.require_evidence, **about})
    if manifest.text.tokenizer is None:
        raise ConfigurationError(f"the manifest of model {manifest.name} names no tokenizer under [text]")
    return _assemble(manifest, FileTokenizer(folder / manifest.text.tokenizer), settings, folder, started)


def _assemble(
    manifest: Manifest, tokenizer: Tokenizer, settings: Settings, folder: Path | None = None, verified_at: int = 0
) -> Model:
    if settings.thinking_tags:
        try:
            manifest = manifest.with_thinking_tags(settings.thinking_tags)
        except ValueError as error:
            raise ConfigurationError(f"setting thinking_tags: {error}") from None
    turns = manifest.text.turns
    text = TextEncoder(
        tokenizer,
        manifest.text.prompt,
        manifest.text.answer,
        manifest.text.max_tokens,
        settings.text_chars,
        manifest.vlm.image if manifest.vlm else (),
        manifest.text.thinking_tags,
        settings.explain_sentences,
        settings.response_steps,
        TurnTemplate(turns.between, turns.system, turns.images == "first") if turns else None,
    )
    golden = read_golden(folder / manifest.golden) if folder and manifest.golden else ()
    card = (folder / manifest.card).read_text("utf-8") if folder and manifest.card else None
    return Model(manifest, text, folder, golden, card, verified_at)
