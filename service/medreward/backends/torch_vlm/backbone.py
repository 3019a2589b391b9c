"""Runs a transformers vision-language model in three steps: image to features, prompt to state, answers from there.

The model's own code runs each step, so that what is special about a family (positions of image tokens, features for
deeper layers, image tokens that see each other) stays where transformers has it. What is ours is that the vision tower
is not asked again for features that are there, and the mask that lets many answers stand in one row.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, DynamicCache
from transformers.distributed import DistributedConfig
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # elsewhere 5.17 asks for torchvision
from transformers.utils import logging

from medreward.backends.base import ModelImage
from medreward.backends.torch_vlm.adapter import base_of, has_adapter, merge
from medreward.backends.torch_vlm.branching import BRANCHES, Past, Prefix
from medreward.backends.torch_vlm.heads import SCORE
from medreward.backends.torch_vlm.packing import (
    BLOCK,
    PROMPT_TOKENS,
    RUN_TOKENS,
    Bundle,
    Ids,
    bundles,
    filled,
    pad,
    padded_runs,
    tokens,
)
from medreward.backends.torch_vlm.sharing import config_to_share
from medreward.backends.torch_vlm.tiling import Tiling
from medreward.encoding.sizes import Cut
from medreward.errors import ConfigurationError

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"
GRID: Final = "image_grid_thw"  # how many patches an image has, for families that take any size
NUMBERS: Final = "batch_num_images"  # how many images each sequence has, for families that ask

Feature = Tensor | Sequence[Tensor]
Inputs = Mapping[str, Any]  # what a family's image processor makes of an image


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower makes of one image, in the form in which the family's model takes it."""

    pooled: Feature
    deeper: Sequence[Feature]  # for the first layers of the decoder, where the family has them
    tokens: int
    grid: Tensor | None = None  # of its patches, where a family takes images of any size
    cut: Cut | None = None  # its layout, where it is cut into tiles

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for feature in (self.pooled, *self.deeper) for tensor in _tensors(feature))


class Backbone:
    """The model without its heads, on one device. Rows are padded on the right, where a causal model never looks."""

    def __init__(
        self,
        model: Any,
        image_processor: Any,
        size: tuple[int, int],
        token_pixels: int = 0,
        alone: bool = False,
        tiling: Tiling | None = None,
    ) -> None:
        """`size` is the height and width of every image. Where each image has its own, it is that of the largest, and
        `token_pixels` is how many pixels make a token, or `tiling` says what becomes of its tiles. With `alone` no two
        prompts and no two answers share a forward, so that nothing but a triple itself decides the shapes it is
        computed in.
        """
        self._image_processor = image_processor
        self.token_pixels = token_pixels
        self._tiling = tiling
        self.base = model.model.eval().requires_grad_(False)
        self._decoder = self.base.get_decoder()
        text = model.config.get_text_config()
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.size = size
        self.alone = alone
        #: Whether a state may be made in more than one way that rounds differently, where that is faster.
        self.varies = not alone and (self.device.type != "cpu" or self.dtype == torch.float32)
        self._run_tokens = 0 if alone else RUN_TOKENS[self.device.type]
        self._prompt_tokens = 0 if alone else PROMPT_TOKENS[self.device.type]
        self._forward_takes = inspect.signature(self.base.forward).parameters.keys()
        self._features_take = inspect.signature(self.base.get_image_features).parameters.keys()
        # Of the whole model and of its decoder alike: transformers renamed it in 5.24, and warns of the old name.
        self._cache_name = "cache" if "cache" in self._forward_takes else "past_key_values"
        self._kinds = _kinds(text)
        model.set_attn_implementation({"text_config": BRANCHES})
        self.width: int = text.hidden_size
        self.vocabulary: int = self.base.get_input_embeddings().num_embeddings
        self.image_token: int = model.config.image_token_id
        if token_pixels:
            self._refuse_unless_any_size(model.config.model_type)
        #: The largest image, in black.
        self.blank: Final = ModelImage(
            "", np.zeros((*size, 3), np.uint8), cut=tiling.tiles.largest.cut if tiling else None
        )
        with torch.inference_mode():
            prepared = self.prepare(self.blank)
            inputs = self._on_device(prepared, self._forward_takes)
            of_every_image = inputs.keys() - {"pixel_values", GRID} if tiling is None else ()
            self._shapes = {name: inputs[name] for name in of_every_image}
            self.image_tokens = self.encode(prepared, self.blank.cut).tokens

    def prepare(self, image: ModelImage) -> Inputs:
        """Returns what the image processor makes of an image. It does not use the device."""
        if self._tiling:
            return self._tiling.inputs(image)
        as_it_is = {"do_resize": False} if self.token_pixels else {}
        inputs: Inputs = self._image_processor(images=Image.fromarray(image.pixels), return_tensors="pt", **as_it_is)
        return inputs

    def encode(self, prepared: Inputs, cut: Cut | None = None) -> Features:
        """Runs the vision tower over a prepared image and returns its features. Fails with a ConfigurationError where
        they are others than its layout says."""
        inputs = self._on_device(prepared, self._features_take)
        seen = self.base.get_image_features(**inputs)
        tokens = sum(tensor.numel() for tensor in _tensors(seen.pooler_output)) // self.width
        if cut and self._written(tokens, cut).count(self.image_token) != tokens:
            raise ConfigurationError(f"the model makes {tokens} tokens of an image: check tokens of [image]")
        deeper = getattr(seen, "deepstack_features", None) or ()
        return Features(seen.pooler_output, deeper, tokens, inputs.get(GRID), cut)

    def prefixes(
        self, prompts: Sequence[Ids], images: Sequence[Sequence[Features]], follow: Sequence[Ids]
    ) -> list[tuple[Prefix, Tensor]]:
        """Runs each prompt with its images and with the one answer that follows it, if only one does.

        Returns the state of each prompt, and the last hidden state behind all that ran. Either every prompt has
        images, or `images` is empty.
        """
        ends: dict[int, tuple[Prefix, Tensor]] = {}
        if images:
            written = [[self._written(each.tokens, each.cut) for each in own] for own in images]
            prompts = self._expanded(prompts, written)
        lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, follow, strict=True)]
        for run in padded_runs(lengths, self._prompt_tokens, equal=not self.varies):
            chosen = [images[i] for i in run] if images else []
            ends |= zip(run, self._prefixes([prompts[i] for i in run], chosen, [follow[i] for i in run]), strict=True)
        return [ends[i] for i in range(len(prompts))]

    def answers(self, groups: Sequence[tuple[Prefix, Sequence[Ids]]], tails: Sequence[Ids] = ()) -> list[Tensor]:
        """Returns, for each group, the last hidden states in fp32 by answer, tail and width.

        They are those at the end of each tail, or at the end of the answer itself where no tails are given.
        """
        most = self._run_tokens if self.varies else 0
        states: list[list[list[Tensor]]] = [[[] for _ in answers] for _, answers in groups]
        made = []
        for g, (prefix, answers) in enumerate(groups):
            for bundle in bundles(answers, tails, most):
                place = bundle[0].answer
                if len(answers[place]) > BLOCK and len(bundle) == 1 + len(tails):
                    states[g][place] = [*self._long_answer(prefix, answers[place], tails)]
                else:
                    made.append((g, bundle))
        for run in filled([tokens(bundle) for _, bundle in made], self._run_tokens):
            chosen = [made[i] for i in run]
            ends = iter(self._branches([(groups[g][0], bundle) for g, bundle in chosen]))
            for g, bundle in chosen:
                for branch in bundle:
                    if branch.is_end:
                        states[g][branch.answer].append(next(ends))
        return [torch.stack([torch.stack(ends) for ends in of_group]) for of_group in states]

    def extend(self, prefix: Prefix, ids: Ids) -> tuple[Prefix, Tensor]:
        """Runs text behind a state, a block at a time. Returns the state behind it, and its last hidden state."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(prefix.layers):
            cache.update(keys[None], values[None], layer)
        for start in range(0, len(ids), BLOCK):
            block = torch.tensor([ids[start : start + BLOCK]], device=self.device)
            positions = torch.arange(block.shape[1], device=self.device)[None] + prefix.start + start
            hidden = self._decoder(
                input_ids=block, position_ids=positions, use_cache=True, **{self._cache_name: cache}
            ).last_hidden_state
        return Prefix([(keys[0], values[0]) for keys, values, *_ in cache], prefix.start + len(ids)), hidden[
            0, -1
        ].float()

    def _long_answer(self, prefix: Prefix, answer: Ids, tails: Sequence[Ids]) -> Tensor:
        state, last = self.extend(prefix, answer)
        return self.answers([(state, tails)])[0][:, 0] if tails else last[None]

    def whole(self, images: Sequence[Sequence[ModelImage]], prompts: Sequence[Ids], answers: Sequence[Ids]) -> Tensor:
        """Returns the last hidden states as transformers alone makes them: each image and each sequence runs from its
        start, padded to the longest.

        It is the reference for parity and for speed. Either every sequence has images, or `images` is empty.
        """
        if images:
            written = [[self._written(self._tokens_of(image), image.cut) for image in own] for own in images]
            prompts = self._expanded(prompts, written)
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        ids = pad(rows, 0).to(self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        inputs = self._types(ids)
        inputs["attention_mask"] = (torch.arange(ids.shape[1], device=self.device) < lengths[:, None]).long()
        of_images = [self._on_device(self.prepare(image), self._forward_takes) for own in images for image in own]
        for name in of_images[0] if of_images else ():
            inputs[name] = _stacked([of_one[name] for of_one in of_images])
        if self._tiling and NUMBERS in inputs:
            inputs[NUMBERS] = torch.tensor([len(own) for own in images], device=self.device)
        self.base.rope_deltas = None
        hidden: Tensor = self.base(input_ids=ids, use_cache=False, **inputs).last_hidden_state
        return hidden[torch.arange(len(rows), device=self.device), lengths - 1].float()

    def _tokens_of(self, image: ModelImage) -> int:
        height, width, _ = image.pixels.shape
        return height * width // self.token_pixels if self.token_pixels else self.image_tokens

    def _written(self, tokens: int, cut: Cut | None) -> Ids:
        """Returns the ids that stand for an image in a prompt."""
        return self._tiling.written(cut) if self._tiling and cut else [self.image_token] * tokens

    def _refuse_unless_any_size(self, family: str) -> None:
        if GRID not in self._forward_takes:
            raise ConfigurationError(f"{family} takes no images of any size: [image] needs a width and a height")
        side = self._image_processor.patch_size * self._image_processor.merge_size
        if side**2 != self.token_pixels:
            raise ConfigurationError(
                f"{side} x {side} pixels are a token to this model: multiple of [image] must be {side}"
            )

    def _types(self, ids: Tensor) -> dict[str, Any]:
        """Returns which tokens are the image's, under the names by which the family asks for it."""
        types = (ids == self.image_token).long()
        return {name: types for name in ("mm_token_type_ids", "token_type_ids") if name in self._forward_takes}

    def _on_device(self, prepared: Inputs, wanted: Collection[str]) -> dict[str, Any]:
        return {name: prepared[name].to(self.device) for name in prepared.keys() & wanted}

    def _expanded(self, prompts: Sequence[Ids], written: Sequence[Sequence[Ids]]) -> list[list[int]]:
        """Returns the prompts with what is written for their images. Each image has as many placeholders in the prompt
        as the next, which share its tokens evenly.
        """
        expanded = []
        for prompt, own in zip(prompts, written, strict=True):
            each, rest = divmod(prompt.count(self.image_token), len(own))
            if not each or rest or any(len(ids) % each for ids in own):
                raise ValueError("the image tokens cannot be shared out to the placeholders of the prompt")
            lengths = [len(ids) // each for ids in own]
            shares = iter([ids[n * i : n * (i + 1)] for ids, n in zip(own, lengths, strict=True) for i in range(each)])
            parts = (next(shares) if token == self.image_token else [token] for token in prompt)
            expanded.append([id_ for part in parts for id_ in part])
        return expanded

    def _prefixes(
        self, prompts: Sequence[Ids], own_images: Sequence[Sequence[Features]], follow: Sequence[Ids]
    ) -> list[tuple[Prefix, Tensor]]:
        images = [features for own in own_images for features in own]
        rows = [[*prompt, *ids] for prompt, ids in zip(prompts, follow, strict=True)]
        ids = pad(rows, 0).to(self.device)
        inputs = self._types(ids)
        if images:
            inputs |= {name: shape.expand(len(images), *shape.shape[1:]) for name, shape in self._shapes.items()}
            grids = [image.grid for image in images if image.grid is not None]
            inputs |= {GRID: torch.cat(grids)} if grids else {}
            inputs["pixel_values"] = torch.empty(len(images))  # nobody looks at them
        cache = DynamicCache()
        inputs[self._cache_name] = cache
        self.base.rope_deltas = None
        with self._known(images):
            hidden = self.base(input_ids=ids, use_cache=True, **inputs).last_hidden_state
        starts = [len(prompt) for prompt in prompts]
        if self.base.rope_deltas is not None:  # positions of image tokens are no running numbers
            starts = [s + d for s, d in zip(starts, self.base.rope_deltas.flatten().tolist(), strict=True)]
        states = [
            Prefix([(k[i, :, : len(prompt)].clone(), v[i, :, : len(prompt)].clone()) for k, v, *_ in cache], start)
            for i, (prompt, start) in enumerate(zip(prompts, starts, strict=True))
        ]
        lasts = hidden[range(len(rows)), [len(row) - 1 for row in rows]].float()  # a copy: all of it need not be kept
        return [*zip(states, lasts, strict=True)]

    @contextmanager
    def _known(self, images: Sequence[Features]) -> Iterator[None]:
        """Gives the model these features, within it, instead of letting it run its vision tower."""
        layers = zip(*(image.deeper for image in images), strict=True)
        features = SimpleNamespace(
            pooler_output=_batched([image.pooled for image in images]) if images else None,
            deepstack_features=[_batched(layer) for layer in layers],
        )
        own = self.base.get_image_features
        self.base.get_image_features = lambda *_, **__: features
        try:
            yield
        finally:
            self.base.get_image_features = own

    def _branches(self, run: Sequence[tuple[Prefix, Bundle]]) -> Tensor:
        """Returns the states in fp32 behind each branch that is an end, all run in one forward."""
        ids: list[int] = []
        positions: list[int] = []
        lasts: list[int] = []
        pasts: list[Past] = []
        for prefix, bundle in run:
            starts: list[int] = []
            for branch in bundle:
                starts.append(len(ids))
                parent = starts[branch.parent or 0]
                ids.extend(branch.ids)
                pasts.append(Past(prefix, slice(parent, parent + branch.start), slice(starts[-1], len(ids))))
                first = prefix.start + branch.start
                positions.extend(range(first, first + len(branch.ids)))
                if branch.is_end:
                    lasts.append(len(ids) - 1)
        # Without a mask the model would make one. A family whose layers read it, and not `pasts`, gets no numbers.
        unread = torch.full((1, 1, 1, 1), torch.nan, dtype=self.dtype, device=self.device)
        hidden: Tensor = self._decoder(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            attention_mask=dict.fromkeys(self._kinds, unread) if len(self._kinds) > 1 else unread,
            use_cache=False,
            pasts=pasts,
        ).last_hidden_state
        return hidden[0, lasts].float()


def load(folder: Path, device: str, dtype: torch.dtype, speaks: bool = False, ranks: int = 1) -> tuple[Any, Any]:
    """Returns the model and its image processor. Weights come from safetensors files alone, and code from transformers.

    The language model's own head may be missing, unless the model is to speak. Of several ranks each has its part.
    Fails with a ConfigurationError for a checkpoint that has a weight missing, or one that the model does not take.
    """
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it would say of weights is checked here
    only = {"local_files_only": True, "trust_remote_code": False}
    place: dict[str, Any] = {"device_map": device}
    try:
        if ranks > 1:
            place = {"config": config_to_share(folder, ranks), "distributed_config": DistributedConfig(tp_size=ranks)}
        with base_of(folder) as base:
            model, about = AutoModelForImageTextToText.from_pretrained(
                base,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                output_loading_info=True,
                **place,
                **only,
            )
        image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **only)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"transformers cannot load {folder}: {error}") from error
    # A classifier's head lies beside the backbone.
    missing = sorted(name for name in about["missing_keys"] if speaks or not name.startswith("lm_head."))
    strange = sorted(name for name in about["unexpected_keys"] if not name.startswith(SCORE))
    other = sorted(str(key[0]) for key in about["mismatched_keys"])
    for names, what in ((missing, "has no"), (strange, "has what its model has no place for:"), (other, "misshapes")):
        if names:
            raise ConfigurationError(f"the checkpoint in {folder} {what} {', '.join(names[:3])}")
    return merge(model, folder) if has_adapter(folder) else model, image_processor


def _kinds(text: Any) -> list[str]:
    """Returns which kinds of layers there are. Fails for those that keep no states."""
    kinds = set(getattr(text, "layer_types", None) or [FULL])
    if kinds - {FULL, SLIDING}:
        raise ConfigurationError(f"layers of {text.model_type} keep no state that answers can branch off exactly")
    return sorted(kinds)


def _stacked(inputs: Sequence[Tensor]) -> Tensor:
    """Returns the inputs of several images as one, each filled up with zeros to the most tiles, as processors do it."""
    if len({each.shape[1:] for each in inputs}) == 1:
        return torch.cat([*inputs])
    most = max(each.shape[1] for each in inputs)
    fillers = [each.new_zeros(1, most - each.shape[1], *each.shape[2:]) for each in inputs]
    return torch.cat([torch.cat(pair, 1) for pair in zip(inputs, fillers, strict=True)])


def _batched(features: Sequence[Feature]) -> Feature:
    tensors = [tensor for feature in features for tensor in _tensors(feature)]
    return torch.cat(tensors) if isinstance(features[0], Tensor) else tensors


def _tensors(feature: Feature) -> Sequence[Tensor]:
    return [feature] if isinstance(feature, Tensor) else feature
