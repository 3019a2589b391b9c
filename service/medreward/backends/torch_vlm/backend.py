"""The backend around a backbone and its heads: it runs each image once, each image with its question once, and
branches the answers off.
"""

import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from medreward.artifacts.image_section import Image, ImageOfOwnSize, ImageOfTiles
from medreward.artifacts.manifest import Manifest, Vlm
from medreward.artifacts.repository import transformers_files
from medreward.backends.base import CostModel, Counts, Group, Logits, ModelImage, RankSeat
from medreward.backends.torch_vlm import adapter
from medreward.backends.torch_vlm.backbone import Backbone, Features, load
from medreward.backends.torch_vlm.branching import Prefix
from medreward.backends.torch_vlm.heads import Heads, TrainedHeads
from medreward.backends.torch_vlm.kept import KeptPrefixes
from medreward.backends.torch_vlm.linears import pack_linears
from medreward.backends.torch_vlm.packing import ALIKE_TOKENS, BLOCK, pieces_of
from medreward.backends.torch_vlm.sharing import held_bytes, join
from medreward.backends.torch_vlm.tiling import Tiling
from medreward.backends.torch_vlm.verbaliser import VerbaliserHeads
from medreward.caches import MIB, ByteCache
from medreward.cores import available_cores
from medreward.encoding.text import FileTokenizer
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.types import Runtime

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
AUTO: Final = {"cpu": "fp32", "cuda": "bf16"}
DTYPE_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
PREPARERS: Final = 4  # threads that make images ready while the device works on others


class TorchVlmBackend:
    """Scores with a transformers checkpoint. It keeps features of images and states of prompts in two caches."""

    def __init__(
        self,
        backbone: Backbone,
        heads: Heads,
        feature_cache_bytes: int = 256 * MIB,
        prefix_cache_bytes: int = 1024 * MIB,
    ) -> None:
        self.backbone = backbone
        self.heads = heads
        self.runtime: Final = Runtime("torch_vlm", backbone.device.type, DTYPE_NAMES[backbone.dtype])
        self._features: ByteCache[Features] = ByteCache(feature_cache_bytes)
        self._prefixes = KeptPrefixes(prefix_cache_bytes)
        self._counts = Counts()
        self._preparers = ThreadPoolExecutor(min(PREPARERS, available_cores()), thread_name_prefix="prepare")

    @property
    def cost(self) -> CostModel:
        pixels, image = self.backbone.token_pixels, self.backbone.image_tokens
        image = 0 if self.backbone.blank.cut else image  # of tiles, the layout says what an image costs
        alike = ALIKE_TOKENS if self.backbone.varies and not self.heads.tails else 0
        row = sum(map(len, self.heads.tails))
        return CostModel(image=image, pixels=pixels, row=row, shares_prompt=True, alike=alike)

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[Logits]:
        states, hidden = self._states(groups)
        with self._counts.timed("answers"):
            left = [i for i in range(len(groups)) if i not in hidden]
            branches = [(states[i], groups[i].answers) for i in left]
            hidden |= zip(left, self.backbone.answers(branches, self.heads.tails), strict=True)
            if not self.backbone.varies:  # a product over several rows may round each otherwise than over one
                logits = [torch.cat([self.heads(row[None]) for row in hidden[i]]) for i in range(len(groups))]
            else:
                logits = [self.heads(hidden[i]) for i in range(len(groups))]
            return [of_group.cpu().numpy() for of_group in logits]

    def warm_up(self) -> None:
        self.score([Group(self.backbone.blank, [self.backbone.image_token, 0], [[0]])])
        self.score([Group(None, [0, 0], [[0]])])

    @property
    def weight_bytes(self) -> int:
        """How many bytes of the language model, which ranks share, this process holds."""
        return held_bytes(self.backbone.base.get_decoder())

    @property
    def prefix_bytes(self) -> int:
        """How many bytes the states of prompts that are kept take."""
        return self._prefixes.bytes

    def release(self) -> None:
        """Empties the caches. Returns when the device has finished what it was given."""
        self._features.clear()
        self._prefixes.clear()
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def rest(self) -> None:
        """Moves the weights to this machine's memory."""
        self._move("cpu")

    def resume(self) -> None:
        self._move(self.runtime.device)

    def _move(self, device: str) -> None:
        self.backbone.base.to(device)
        self.heads.to(device)
        self.release()

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    def _states(self, groups: Sequence[Group]) -> tuple[list[Prefix], dict[int, Tensor]]:
        """Returns the state of each group's image and prompt, and for some groups the last hidden state of the answer.

        A state that several groups need, or that an earlier batch needed, is made once. An answer that shares its
        prompt with no other runs along with it: its hidden state is there by the index of its group.
        """
        keys = [group.key for group in groups]
        distinct = dict(zip(keys, groups, strict=True))
        pieces = {key: self._pieces_of(group) for key, group in distinct.items()}
        states: dict[str, Prefix] = {}
        for key, group in distinct.items():
            state, reached = self._prefixes.longest(group, pieces[key])
            if state and reached == len(pieces[key]):
                states[key] = state
        missing = {key: group for key, group in distinct.items() if key not in states}
        sharing = Counter(keys)
        joins = not self.heads.tails and self.backbone.varies
        alone = {
            key
            for key, group in missing.items()
            if joins
            and sharing[key] == len(group.answers) == 1
            and len(pieces[key]) == 1
            and len(group.answers[0]) <= BLOCK
        }
        features = self._image_features([image for group in missing.values() for image in group.images])
        with self._counts.timed("prompt"):
            ran = self._run_prompts(missing, features, alone)
        states |= {key: state for key, (state, _) in ran.items()}
        hidden = {i: ran[key][1].view(1, 1, -1) for i, key in enumerate(keys) if key in alone}
        self._counts.prefix_runs += len(missing)
        self._counts.prefix_hits += len(groups) - len(missing)
        return [states[key] for key in keys], hidden

    def _run_prompts(
        self, groups: Mapping[str, Group], features: Mapping[str, Features], alone: Collection[str]
    ) -> dict[str, tuple[Prefix, Tensor]]:
        """Runs each prompt, with its answer if it is `alone`; returns the state, and the last hidden state of all."""
        long = {key: group for key, group in groups.items() if len(self._pieces_of(group)) > 1}
        ends = {key: (self._run_long(group, features), torch.empty(0)) for key, group in long.items()}
        short = {key: group for key, group in groups.items() if key not in ends}
        for has_image in (True, False):
            some = {key: group for key, group in short.items() if bool(group.image) == has_image}
            images = [[features[image.key] for image in group.images] for group in some.values()] if has_image else []
            follow = [group.answers[0] if key in alone else () for key, group in some.items()]
            ran = self.backbone.prefixes([group.prompt for group in some.values()], images, follow)
            ends |= zip(some, ran, strict=True)
            if has_image:  # text alone does not say whose it is
                for group, (state, _) in zip(some.values(), ran, strict=True):
                    self._prefixes.put(group, [len(group.prompt)], state)
        return ends

    def _run_long(self, group: Group, features: Mapping[str, Features]) -> Prefix:
        """Returns the state of a prompt that is run piece by piece, from the end of what is kept of it."""
        pieces = self._pieces_of(group)
        state, reached = self._prefixes.longest(group, pieces) if group.image else (None, 0)
        if state is None:
            images = [[features[image.key] for image in group.images]] if group.image else []
            [(state, _)] = self.backbone.prefixes([group.prompt[: pieces[0]]], images, [()])
            reached = 1
        for start, end in pairwise(pieces[reached - 1 :]):
            state, _ = self.backbone.extend(state, group.prompt[start:end])
        if group.image:
            self._prefixes.put(group, pieces, state)
        return state

    def _pieces_of(self, group: Group) -> list[int]:
        return pieces_of(group.prompt, self.backbone.image_token)

    def _image_features(self, images: Sequence[ModelImage]) -> dict[str, Features]:
        """Returns features by key. Each image runs through the vision tower once; the next are prepared meanwhile."""
        features = {image.key: kept for image in images if (kept := self._features.get(image.key)) is not None}
        unseen = {image.key: image for image in images if image.key not in features}
        self._counts.image_hits += len(images) - len(unseen)
        self._counts.image_encodes += len(unseen)
        with self._counts.timed("encode"):
            for key, prepared in zip(unseen, self._preparers.map(self.backbone.prepare, unseen.values()), strict=True):
                features[key] = self.backbone.encode(prepared, unseen[key].cut)
                self._features.put(key, features[key])
        return features


def open_torch_vlm(
    folder: Path, manifest: Manifest, settings: Settings, seat: RankSeat | None = None
) -> TorchVlmBackend:
    """Returns the backend of the checkpoint in the folder; a rank returns when all ranks are there.

    Fails with a ConfigurationError for a checkpoint that is not whole or not as its manifest says.
    """
    if manifest.vlm is None:
        raise ConfigurationError(f"model {manifest.name} has no section [vlm]")
    # A file that transformers reads decides scores, and so the manifest must have a digest for it.
    unlisted = sorted({path.name for path in transformers_files(folder)} - manifest.files.keys())
    if unlisted:
        raise ConfigurationError(f"{folder} has files that model.toml gives no digest for: {', '.join(unlisted[:5])}")
    device = choose_device(settings.device)
    torch.set_num_threads(settings.threads or available_cores())
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    if seat:
        join(seat, device)
    dtype = DTYPES[AUTO[device] if settings.dtype == "auto" else settings.dtype]
    speaks, ranks = manifest.vlm.verbaliser is not None, seat.ranks if seat else 1
    model, image_processor = load(folder, device, dtype, speaks, ranks)
    tokenizer = FileTokenizer(folder / (manifest.text.tokenizer or ""))
    backbone = open_backbone(model, image_processor, manifest.image, tokenizer, settings.deterministic)
    _refuse_other_placeholders(backbone, manifest.vlm, tokenizer)
    heads = _heads(folder, manifest.vlm, manifest.dimensions, tokenizer, model)
    if not manifest.experts:  # whose adapters need layers as they are
        pack_linears(backbone.base)
    return TorchVlmBackend(backbone, heads, settings.feature_cache_bytes, settings.prefix_cache_bytes)


def open_backbone(
    model: Any,
    image_processor: Any,
    image: Image | ImageOfOwnSize | ImageOfTiles,
    tokenizer: FileTokenizer,
    alone: bool = False,
) -> Backbone:
    """Returns the backbone of a model that sees images as the section [image] says. Fails with a ConfigurationError
    where it cannot."""
    if isinstance(image, Image):
        return Backbone(model, image_processor, (image.height, image.width), alone=alone)
    if isinstance(image, ImageOfTiles):
        tiling, largest = Tiling(image.sizes, model, image_processor, tokenizer), image.sizes.largest
        return Backbone(model, image_processor, (largest.height, largest.width), alone=alone, tiling=tiling)
    side = math.isqrt(image.max_pixels) // image.multiple * image.multiple  # of the largest square
    return Backbone(model, image_processor, (side, side), image.multiple**2, alone)


def _refuse_other_placeholders(backbone: Backbone, vlm: Vlm, tokenizer: FileTokenizer) -> None:
    """Fails unless the image's tokens can be shared out evenly; where images differ in size, one must stand for all."""
    count = [tokenizer.control_tokens.get(piece) for piece in vlm.image].count(backbone.image_token)
    differ = backbone.token_pixels or backbone.blank.cut
    if not count or backbone.image_tokens % count or (differ and count > 1):
        raise ConfigurationError(
            f"{count} placeholders under image of [vlm] cannot hold the {backbone.image_tokens} tokens of an image"
        )


def _heads(folder: Path, vlm: Vlm, dimensions: Sequence[str], tokenizer: FileTokenizer, model: Any) -> Heads:
    if vlm.head != adapter.WEIGHTS and adapter.has_adapter(folder) and adapter.has_head(folder):
        raise ConfigurationError(f"{adapter.WEIGHTS} has a head of its own, and [vlm] takes another: which is it?")
    if vlm.head:
        return TrainedHeads(
            folder / vlm.head, model.config.get_text_config().hidden_size, len(dimensions), model.device
        )
    assert vlm.verbaliser
    return VerbaliserHeads(vlm.verbaliser, dimensions, tokenizer, model)


def choose_device(wanted: str) -> str:
    """Returns cpu or cuda. `auto` takes CUDA where torch has it; `cuda` fails where it has not."""
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ConfigurationError("torch found no usable CUDA device; choose device cpu")
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"
