"""Image once, image and question once, answers branched off: the backend around a backbone and its heads."""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from medreward.artifacts.manifest import Manifest, Vlm
from medreward.backends.base import CostModel, Counts, Group, Logits, ModelImage
from medreward.backends.torch_vlm.backbone import Backbone, Features, Prefix, load
from medreward.backends.torch_vlm.heads import Heads, Reader
from medreward.backends.torch_vlm.verbaliser import VerbaliserHeads
from medreward.caches import MIB, ByteCache
from medreward.cores import available_cores
from medreward.encoding.text import FileTokenizer
from medreward.errors import ConfigurationError

DTYPES: Final = {"cpu": torch.float32, "cuda": torch.bfloat16}
WRITTEN: Final = {torch.float32: "fp32", torch.bfloat16: "bf16"}
LOADED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # files that transformers may read


class TorchVlmBackend:
    def __init__(
        self,
        backbone: Backbone,
        heads: Reader,
        feature_cache_bytes: int = 256 * MIB,
        prefix_cache_bytes: int = 1024 * MIB,
    ) -> None:
        self.backbone = backbone
        self.heads = heads
        self._features: ByteCache[Features] = ByteCache(feature_cache_bytes)
        self._prefixes: ByteCache[Prefix] = ByteCache(prefix_cache_bytes)
        self._counts = Counts()

    @property
    def runtime(self) -> str:
        return f"torch_vlm/{self.backbone.device.type}/{WRITTEN[self.backbone.dtype]}"

    @property
    def cost(self) -> CostModel:
        return CostModel(image=self.backbone.image_tokens, row=sum(map(len, self.heads.tails)), shares_prompt=True)

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[Logits]:
        prefixes = self._states(groups)
        branches = [(prefix, group.answers) for prefix, group in zip(prefixes, groups, strict=True)]
        return [self.heads(hidden).cpu().numpy() for hidden in self.backbone.answers(branches, self.heads.tails)]

    def warm_up(self) -> None:
        blank = ModelImage("", np.zeros((*self.backbone.size, 3), np.uint8))
        self.score([Group(blank, [self.backbone.image_token, 0], [[0]])])
        self.score([Group(None, [0, 0], [[0]])])

    def take_counts(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts

    def _states(self, groups: Sequence[Group]) -> list[Prefix]:
        """The state of each group's image and prompt; what several need, or an earlier batch needed, runs once."""
        distinct = {_key(group): group for group in groups}
        found = {key: state for key in distinct if (state := self._prefixes.get(key)) is not None}
        missing = {key: group for key, group in distinct.items() if key not in found}
        seen = {key: group.image for key, group in missing.items() if group.image}
        features = self._image_features(seen.values())
        unseen = [key for key in missing if key not in seen]
        for keys, images in (([*seen], [features[image.key] for image in seen.values()]), (unseen, [])):
            states = self.backbone.prefixes([missing[key].prompt for key in keys], images)
            found |= zip(keys, states, strict=True)
        for key in seen:  # text alone does not say whose it is
            self._prefixes.put(key, found[key])
        self._counts.prefix_runs += len(missing)
        self._counts.prefix_hits += len(groups) - len(missing)
        return [found[_key(group)] for group in groups]

    def _image_features(self, images: Iterable[ModelImage]) -> dict[str, Features]:
        """By key, each image through the vision tower once."""
        found: dict[str, Features] = {}
        for image in images:
            features = found.get(image.key) or self._features.get(image.key)
            if features is None:
                features = self.backbone.encode(image.pixels)
                self._features.put(image.key, features)
                self._counts.image_encodes += 1
            else:
                self._counts.image_hits += 1
            found[image.key] = features
        return found


def open_torch_vlm(
    folder: Path, manifest: Manifest, device: str, threads: int, feature_cache_bytes: int, prefix_cache_bytes: int
) -> TorchVlmBackend:
    """From a folder, whole and as its manifest says, or a ConfigurationError."""
    if manifest.vlm is None:
        raise ConfigurationError(f"model {manifest.name} has no section [vlm]")
    _refuse_unlisted(folder, manifest)
    device = choose_device(device)
    torch.set_num_threads(threads or available_cores())
    model, image_processor = load(folder, device, DTYPES[device], speaks=manifest.vlm.verbaliser is not None)
    backbone = Backbone(model, image_processor, (manifest.image.height, manifest.image.width))
    tokenizer = FileTokenizer(folder / (manifest.text.tokenizer or ""))
    pieces = [tokenizer.control_tokens.get(piece) for piece in manifest.vlm.image]
    placeholders = pieces.count(backbone.image_token)
    if not placeholders or backbone.image_tokens % placeholders:
        found, wanted = placeholders, backbone.image_tokens
        raise ConfigurationError(
            f"{found} placeholders under image of [vlm] cannot hold the {wanted} tokens of an image"
        )
    heads = _heads(folder, manifest.vlm, manifest.dimensions, tokenizer, model)
    return TorchVlmBackend(backbone, heads, feature_cache_bytes, prefix_cache_bytes)


def _heads(folder: Path, vlm: Vlm, dimensions: Sequence[str], tokenizer: FileTokenizer, model: Any) -> Reader:
    if vlm.head:
        return Heads(folder / vlm.head, model.config.get_text_config().hidden_size, len(dimensions), model.device)
    assert vlm.verbaliser
    return VerbaliserHeads(vlm.verbaliser, dimensions, tokenizer, model)


def choose_device(wanted: str) -> str:
    """`auto` takes CUDA where torch has it."""
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ConfigurationError("torch found no usable CUDA device; choose device cpu")
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def _key(group: Group) -> str:
    prompt = blake2b(array("Q", group.prompt).tobytes(), digest_size=16).hexdigest()
    return f"{group.image.key if group.image else ''}/{prompt}"


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    """A file that transformers reads decides scores, and so must be one that the manifest has a digest for."""
    found = {path.name for pattern in LOADED for path in folder.glob(pattern)}
    unlisted = sorted(found - manifest.files.keys())
    if unlisted:
        raise ConfigurationError(f"{folder} has files that model.toml gives no digest for: {', '.join(unlisted[:5])}")
