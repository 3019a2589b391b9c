"""Image once, image and question once, answers branched off: the backend around a backbone and its heads."""

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import torch

from medreward.artifacts.manifest import Manifest
from medreward.backends.base import CostModel, Counts, Group, Logits, ModelImage
from medreward.backends.torch_vlm.backbone import Backbone, Features, Prefix
from medreward.backends.torch_vlm.heads import LinearHeads
from medreward.caches import MIB, ByteCache
from medreward.cores import available_cores
from medreward.errors import ConfigurationError

DTYPES: Final = {"cpu": torch.float32, "cuda": torch.bfloat16}
WRITTEN: Final = {torch.float32: "fp32", torch.bfloat16: "bf16"}
LOADED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # files that transformers may read


class TorchVlmBackend:
    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        device: str = "auto",
        threads: int = 0,
        feature_cache_bytes: int = 256 * MIB,
        prefix_cache_bytes: int = 1024 * MIB,
    ) -> None:
        if manifest.vlm is None:
            raise ConfigurationError(f"model {manifest.name} has no section [vlm]")
        _refuse_unlisted(folder, manifest)
        self._device = choose_device(device)
        self._dtype = DTYPES[self._device]
        torch.set_num_threads(threads or available_cores())
        self._size = (manifest.image.height, manifest.image.width)
        with torch.inference_mode():
            self._backbone = Backbone(folder, self._device, self._dtype, self._size, set())
        self._heads = LinearHeads(folder / manifest.vlm.head, self._backbone.width, self._device)
        self._features: ByteCache[Features] = ByteCache(feature_cache_bytes)
        self._prefixes: ByteCache[Prefix] = ByteCache(prefix_cache_bytes)
        self._counts = Counts()

    @property
    def runtime(self) -> str:
        return f"torch_vlm/{self._device}/{WRITTEN[self._dtype]}"

    @property
    def cost(self) -> CostModel:
        return CostModel(image=self._backbone.image_tokens, shares_prompt=True)

    @torch.inference_mode()
    def score(self, groups: Sequence[Group]) -> list[Logits]:
        prefixes = self._states(groups)
        hidden = self._backbone.answers(
            [(prefix, group.answers) for prefix, group in zip(prefixes, groups, strict=True)]
        )
        return [self._heads(states).cpu().numpy() for states in hidden]

    def warm_up(self) -> None:
        blank = ModelImage("", np.zeros((*self._size, 3), np.uint8))
        self.score([Group(blank, [self._backbone.image_token, 0], [[0]])])
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
            states = self._backbone.prefixes([missing[key].prompt for key in keys], images)
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
                features = self._backbone.encode(image.pixels)
                self._features.put(image.key, features)
                self._counts.image_encodes += 1
            else:
                self._counts.image_hits += 1
            found[image.key] = features
        return found


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
