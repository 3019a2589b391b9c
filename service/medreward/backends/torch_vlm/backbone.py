"""A transformers vision-language model in three steps: an image to features, a prompt to a state, answers off it.

The model's own code runs each step, so that what is special about a family (positions of image tokens, features for
deeper layers, image tokens that see each other) stays where transformers has it. What is ours is that the vision tower
is not asked again for features that are there, and the mask that lets many answers stand in one row.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, DynamicCache
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # elsewhere 5.17 asks for torchvision
from transformers.utils import logging

from medreward.backends.torch_vlm.packing import Packed, packed, padded, runs
from medreward.errors import ConfigurationError

RUN_TOKENS: Final = 16_384  # most tokens in a forward of several rows, padding included
FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower says of one image, in the form that the family's model takes it."""

    pooled: Tensor | Sequence[Tensor]
    deeper: Sequence[Tensor]  # for the first layers of the decoder, where the family has them

    @property
    def tensors(self) -> list[Tensor]:
        return [*([self.pooled] if isinstance(self.pooled, Tensor) else self.pooled), *self.deeper]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The state of a prompt that answers branch off."""

    layers: Sequence[tuple[Tensor, Tensor]]  # keys and values: heads, tokens, width
    start: int  # position of an answer's first token

    @property
    def length(self) -> int:
        return int(self.layers[0][0].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class Backbone:
    """On one device. Rows are padded on the right, where a causal model never looks."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype, size: tuple[int, int], foreign: set[str]) -> None:
        """`size` is the height and width of every image, `foreign` the weights in the checkpoint that are not its."""
        logging.disable_progress_bar()
        model = _load(folder, device, dtype, foreign)
        self._base = model.model.eval().requires_grad_(False)
        self._decoder = self._base.get_decoder()
        self._text = model.config.get_text_config()
        self._image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
        self._device = device
        self._forward_takes = inspect.signature(self._base.forward).parameters.keys()
        self._features_take = inspect.signature(self._base.get_image_features).parameters.keys()
        self._windows = _windows(self._text)
        self.width: int = self._text.hidden_size
        self.image_token: int = model.config.image_token_id
        blank = np.zeros((*size, 3), np.uint8)
        self._shapes = self._of_image(blank, self._forward_takes)  # sizes, grids: the same for every image
        pooled = self.encode(blank).pooled
        self.image_tokens = (pooled if isinstance(pooled, Tensor) else torch.cat([*pooled])).numel() // self.width

    def encode(self, pixels: NDArray[np.uint8]) -> Features:
        """Runs the vision tower."""
        found = self._base.get_image_features(**self._of_image(pixels, self._features_take, "pixel_values"))
        return Features(found.pooler_output, getattr(found, "deepstack_features", None) or ())

    def prefixes(self, prompts: Sequence[Ids], images: Sequence[Features]) -> list[Prefix]:
        """Runs each prompt with its image; there are as many images as prompts, or none at all."""
        found: dict[int, Prefix] = {}
        prompts = [self._expanded(prompt) for prompt in prompts] if images else prompts
        for run in runs([len(prompt) for prompt in prompts], RUN_TOKENS):
            chosen = self._prefixes([prompts[i] for i in run], [images[i] for i in run] if images else [])
            found |= dict(zip(run, chosen, strict=True))
        return [found[i] for i in range(len(prompts))]

    def answers(self, groups: Sequence[tuple[Prefix, Sequence[Ids]]]) -> list[Tensor]:
        """The last hidden state at the last token of each answer, in fp32."""
        rows = [(g, row) for g, (_, answers) in enumerate(groups) for row in packed(answers)]
        found = [torch.empty(len(answers), self.width, device=self._device) for _, answers in groups]
        for run in runs([groups[g][0].length + len(row.ids) for g, row in rows], RUN_TOKENS):
            hidden = self._rows([(groups[rows[i][0]][0], rows[i][1]) for i in run])
            for place, i in enumerate(run):
                g, row = rows[i]
                found[g][row.answers] = hidden[place, row.lasts].float()
        return found

    def _of_image(self, pixels: NDArray[np.uint8], wanted: Any, *needed: str) -> dict[str, Any]:
        """What the family's image processor makes of the pixels, as far as it is asked for."""
        made = self._image_processor(images=Image.fromarray(pixels), return_tensors="pt")
        names = (made.keys() & wanted) - {"pixel_values"} | {*needed}
        return {name: made[name].to(self._device) for name in names}

    def _expanded(self, prompt: Ids) -> list[int]:
        """A placeholder becomes as many as there are image tokens; where a template has several, they share them."""
        each, rest = divmod(self.image_tokens, prompt.count(self.image_token))
        if rest:
            raise ValueError("the image tokens cannot be shared out to the placeholders of the prompt")
        return [id_ for token in prompt for id_ in ([token] * each if token == self.image_token else [token])]

    def _prefixes(self, prompts: Sequence[Ids], images: Sequence[Features]) -> list[Prefix]:
        ids = padded(prompts, 0).to(self._device)
        types = (ids == self.image_token).long()
        inputs: dict[str, Any] = {"mm_token_type_ids": types, "token_type_ids": types}
        if images:
            inputs |= {name: value.repeat_interleave(len(images), 0) for name, value in self._shapes.items()}
        inputs = {name: value for name, value in inputs.items() if name in self._forward_takes}
        cache = DynamicCache()
        self._base.rope_deltas = None
        with self._known(images):
            pixels = torch.empty(len(images)) if images else None
            self._base(input_ids=ids, pixel_values=pixels, past_key_values=cache, use_cache=True, **inputs)
        starts = [len(prompt) for prompt in prompts]
        if self._base.rope_deltas is not None:  # positions of image tokens are no running numbers
            starts = [s + d for s, d in zip(starts, self._base.rope_deltas.flatten().tolist(), strict=True)]
        return [
            Prefix([(k[i, :, : len(prompt)].clone(), v[i, :, : len(prompt)].clone()) for k, v, *_ in cache], start)
            for i, (prompt, start) in enumerate(zip(prompts, starts, strict=True))
        ]

    @contextmanager
    def _known(self, images: Sequence[Features]) -> Iterator[None]:
        """Within it the model is given these features instead of running its vision tower."""
        own = self._base.get_image_features
        self._base.get_image_features = lambda *_, **__: _joined(images)
        try:
            yield
        finally:
            self._base.get_image_features = own

    def _rows(self, rows: Sequence[tuple[Prefix, Packed]]) -> Tensor:
        ids = padded([row.ids for _, row in rows], 0).to(self._device)
        positions = padded([[prefix.start + offset for offset in row.offsets] for prefix, row in rows], 0)
        cache = DynamicCache()
        for layer in range(len(rows[0][0].layers)):
            keys, values = (_stacked([prefix.layers[layer][side] for prefix, _ in rows]) for side in (0, 1))
            cache.update(keys, values, layer)
        hidden: Tensor = self._decoder(
            input_ids=ids,
            position_ids=positions.to(self._device),
            attention_mask=self._mask(rows),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _mask(self, rows: Sequence[tuple[Prefix, Packed]]) -> Tensor | Mapping[str, Tensor]:
        """An answer's token sees its prompt and what stands before it in its own answer."""
        places = torch.arange(max(prefix.length for prefix, _ in rows))
        lengths = torch.tensor([prefix.length for prefix, _ in rows])[:, None]
        # What fills a row up sees itself, because a softmax over nothing is not a number.
        owners = padded([row.owners for _, row in rows], -1)
        offsets = padded([row.offsets for _, row in rows], 0)
        own = (owners[:, :, None] == owners[:, None, :]).tril()
        prompt = (places < lengths)[:, None, :].expand(-1, owners.shape[1], -1)
        seen = torch.cat([prompt, own], -1)
        queries = lengths + offsets
        keys = torch.cat([places.expand(len(rows), -1), queries], -1)
        distance = queries[:, :, None] - keys[:, None, :]
        masks = {
            kind: (seen & (distance < window) if window else seen)[:, None].to(self._device)
            for kind, window in self._windows.items()
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))


def _load(folder: Path, device: str, dtype: torch.dtype, foreign: set[str]) -> Any:
    """Every weight from a safetensors file of the folder, none made up, no code but transformers' own."""
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"transformers cannot load {folder}: {error}") from error
    # The language model's own head is not asked for a score.
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("lm_head."))
    strange = sorted({*found["unexpected_keys"]} - foreign)
    other = sorted(str(key[0]) for key in found["mismatched_keys"])
    for names, what in ((missing, "has no"), (strange, "has what its model has no place for:"), (other, "misshapes")):
        if names:
            raise ConfigurationError(f"the checkpoint in {folder} {what} {', '.join(names[:3])}")
    return model


def _windows(text: Any) -> dict[str, int | None]:
    """How far each kind of layer looks back."""
    window = getattr(text, "sliding_window", None)
    kinds = set(getattr(text, "layer_types", None) or [SLIDING if window else FULL])
    if kinds - {FULL, SLIDING}:
        raise ConfigurationError(f"layers of {text.model_type} keep no state that answers can branch off exactly")
    return {kind: window if kind == SLIDING else None for kind in sorted(kinds)}


def _joined(images: Sequence[Features]) -> SimpleNamespace:
    pooled = [image.pooled for image in images]
    deeper = [torch.cat(layer) for layer in zip(*(image.deeper for image in images), strict=True)]
    return SimpleNamespace(
        pooler_output=torch.cat([p for p in pooled if isinstance(p, Tensor)])
        if isinstance(pooled[0], Tensor)
        else [tensor for p in pooled for tensor in p],
        deepstack_features=deeper,
    )


def _stacked(states: Sequence[Tensor]) -> Tensor:
    """Heads, tokens, width of each prefix to one tensor, filled up with zeros."""
    longest = max(state.shape[1] for state in states)
    return torch.stack([torch.nn.functional.pad(state, (0, 0, 0, longest - state.shape[1])) for state in states])
