"""What a LoRA adapter changes: the difference that it makes to each weight of its base.

Differences are what experts are merged on. A and B of two adapters say nothing together: B A is the same for many
pairs of them.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medreward.backends.torch_vlm.adapter import CLASSIFIER_HEADS, CONFIG, WEIGHTS
from medreward.errors import ConfigurationError

PREFIX: Final = "base_model.model."
#: Options of a LoRA that are computed here, or that change no weight after training.
KNOWN: Final = frozenset(
    {
        "task_type",
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "target_modules",
        "exclude_modules",
        "lora_alpha",
        "lora_dropout",
        "bias",
        "use_rslora",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "use_dora",
        "lora_bias",
        "runtime_config",
        "init_lora_weights",
    }
)
#: Ways to start A and B that leave the weights of the base as they are.
STARTS: Final = (True, False, "gaussian", "orthogonal", "eva")
PIECE: Final = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\..+)?")


class Lora:
    """An adapter on disk; its tensors are read when they are asked for.

    Opening fails with a ConfigurationError for an adapter that is no LoRA, or has an option that is not known here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
            file: Any = safe_open(folder / WEIGHTS, "pt")
            keys: list[str] = [*file.keys()]
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigurationError(f"the adapter in {folder} cannot be read: {error}") from None
        self._file = file
        self._refuse_unknown_options()
        self._pieces: dict[str, dict[str, str]] = {}  # by module: names of its tensors
        self._whole: dict[str, str] = {}  # by weight: the name of what takes its place
        for key in keys:
            name = key.removeprefix(PREFIX)
            if name.partition(".")[0] in CLASSIFIER_HEADS:
                continue
            if piece := PIECE.fullmatch(name):
                module, kind, part = piece.groups()
                self._pieces.setdefault(module, {})[kind if part != ".bias" else f"{kind}.bias"] = key
            else:
                self._whole[name.replace(".base_layer.", ".")] = key

    @property
    def is_plain(self) -> bool:
        """Whether it has nothing but matrices beside those of its base, so that it can be taken off again."""
        return not self._whole and self._config.get("bias", "none") == "none"

    @property
    def names(self) -> Collection[str]:
        """The names of the weights that it changes, in the loaded model."""
        biased = [f"{module}.bias" for module, pieces in self._pieces.items() if "lora_B.bias" in pieces]
        return {*(f"{module}.weight" for module in self._pieces), *biased, *self._whole}

    def delta(self, name: str, base: Tensor) -> Tensor | None:
        """Returns in fp32 what it adds to this weight of its base, None if it leaves it as it is.

        Fails with a ConfigurationError where its tensors do not fit the weight.
        """
        wide = base.to(torch.float32)
        module, _, kind = name.rpartition(".")
        pieces = self._pieces.get(module, {})
        total = None
        if key := self._whole.get(name):
            own = self._read(key)
            total = own - self._fitting(name, own.shape, wide)
        if kind == "bias" and "lora_B.bias" in pieces:
            learnt = self._scaling(module, pieces) * self._read(pieces["lora_B.bias"])
            total = learnt if total is None else total + learnt
        if kind == "weight" and pieces:
            product = self._product(name, module, pieces, wide if total is None else wide + total)
            total = product if total is None else total + product
        return total

    def _product(self, name: str, module: str, pieces: Mapping[str, str], base: Tensor) -> Tensor:
        is_embedding = "lora_embedding_A" in pieces
        a, b = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
        if a not in pieces or b not in pieces:
            raise ConfigurationError(f"the adapter in {self._folder} has only one half of a LoRA for {module}")
        down, up = self._read(pieces[a]), self._read(pieces[b])
        if down.dim() != 2 or up.dim() != 2:
            raise ConfigurationError(f"the adapter in {self._folder} has a LoRA for the convolution {module}")
        product = up @ down
        delta = self._scaling(module, pieces) * (product.T if is_embedding else product)
        self._fitting(name, delta.shape, base)
        magnitude = pieces.get("lora_magnitude_vector")
        if magnitude is None:
            return delta
        if is_embedding:
            raise ConfigurationError(f"the adapter in {self._folder} has a DoRA for the embedding {module}")
        tuned = base + delta
        scale: Tensor = self._read(magnitude).view(-1, 1) / torch.linalg.norm(tuned, dim=1, keepdim=True)
        return scale * tuned - base

    def _scaling(self, module: str, pieces: Mapping[str, str]) -> float:
        down = pieces.get("lora_A") or pieces["lora_embedding_A"]
        rank: int = self._file.get_slice(down).get_shape()[0]
        alpha: float = self._config.get("lora_alpha", 8)
        for pattern, value in (self._config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                alpha = value
                break
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _fitting(self, name: str, shape: torch.Size, base: Tensor) -> Tensor:
        """Returns the weight of the base; fails unless it has this shape."""
        if shape != base.shape:
            raise ConfigurationError(
                f"the adapter in {self._folder} is of another base: to it {name} is {[*shape]}, in the base "
                f"{[*base.shape]}"
            )
        return base

    def _read(self, key: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(key)
        return tensor.to(torch.float32)

    def _refuse_unknown_options(self) -> None:
        """Fails for an option that changes what an adapter adds in a way that is not computed here."""
        where, config = f"the adapter in {self._folder}", self._config
        if config.get("peft_type") != "LORA":
            raise ConfigurationError(f"{where} is {config.get('peft_type')}, and only LoRA is merged")
        if config.get("init_lora_weights", True) not in STARTS:
            raise ConfigurationError(
                f"{where} was started by {config['init_lora_weights']}, which changes the base: save it as a plain LoRA"
            )
        usual = {field.name: field.default for field in fields(LoraConfig)}
        strange = sorted(
            name
            for name, value in config.items()
            if name not in KNOWN and value not in ({}, []) and value not in (usual.get(name), None, False)
        )
        if strange:
            raise ConfigurationError(f"{where} uses {', '.join(strange)}; what that changes is not known here")
