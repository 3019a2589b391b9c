"""The checkpoint that a fine-tuning starts from: its text and image sizes, its weights, and which of them learn."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig

from medreward.artifacts.manifest import Manifest, parse_manifest, read_manifest
from medreward.artifacts.repository import MANIFEST_FILE, bundled_models, resolve, verify
from medreward.backends.base import Group
from medreward.backends.torch_vlm.adopt import HEAD, VALUE_HEAD, head_of, make_manifest
from medreward.backends.torch_vlm.backbone import load
from medreward.backends.torch_vlm.backend import open_backbone
from medreward.backends.torch_vlm.heads import TrainedHeads
from medreward.encoding.text import FileTokenizer
from medreward.errors import ConfigurationError, ItemError
from medreward.lab.training.reader import Reader
from medreward.lab.vlm.examples import Example
from medreward.lab.vlm.heads import RewardHeads
from medreward.lab.vlm.recipe import Recipe, Tune
from medreward.lab.vlm.recompute import recompute_layers
from medreward.lab.vlm.scorer import Scorer
from medreward.types import DIMENSIONS

ADAPTER: Final = "lora_"  # what peft puts into the names of an adapter's weights


@dataclass(frozen=True, slots=True)
class Base:
    """What a checkpoint reads, before it learns."""

    folder: Path
    manifest: Manifest  # its own, or the one that it would be adopted with
    trained_head: dict[str, torch.Tensor] | None  # that the checkpoint has
    dtype: torch.dtype  # of its weights on disk


@dataclass(frozen=True, slots=True)
class Opened:
    """A base with its weights in memory, ready to learn."""

    model: Any  # as transformers loads it, or peft's around it
    scorer: Scorer


def as_group(reader: Reader, example: Example) -> Group:
    """Returns the example as a backend takes it; fails with a ConfigurationError that names its row."""
    try:
        picture = example.picture
        image = reader.image(picture.name, picture.read()) if picture else None
        return reader.group(image, example.question, example.answers)
    except ItemError as error:
        raise ConfigurationError(f"{example.where}: {error.detail}") from None


def read_base(recipe: Recipe) -> Base:
    """Returns what the recipe's base reads, by its manifest or, without one, as `models adopt` would read it.

    Fails with a ConfigurationError for a checkpoint that is not whole, or that no VLM backend knows.
    """
    folder = resolve(recipe.base, bundled_models())
    if (folder / MANIFEST_FILE).exists():
        own = read_manifest(folder / MANIFEST_FILE)
        if own.vlm is None:
            raise ConfigurationError(f"the base in {folder} is no vision-language model: it has no section [vlm]")
        if problems := verify(folder, own):
            raise ConfigurationError(f"the base in {folder}: {'; '.join(problems.values())}")
        head: tuple[str, tuple[str, ...]] | None = (own.vlm.head, own.dimensions) if own.vlm.head else None
    else:
        own = None
        try:
            head = head_of(folder)
        except ConfigurationError:  # an instruction-tuned model has none
            head = None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    width = config.get_text_config().hidden_size
    trained = None
    if head and len(head[1]) in (1, len(DIMENSIONS)):
        trained = TrainedHeads(folder / head[0], width, len(head[1]), torch.device("cpu")).weights
    manifest = own or _as_adopted(folder, width, recipe)
    return Base(folder, manifest, trained, getattr(config, "dtype", None) or torch.float32)


def _as_adopted(folder: Path, width: int, recipe: Recipe) -> Manifest:
    """Returns the manifest that the checkpoint would have with a head of ours beside it."""
    with _beside(folder) as staged:
        save_file({"weight": torch.zeros(len(DIMENSIONS), width), "bias": torch.zeros(len(DIMENSIONS))}, staged / HEAD)
        try:
            adopted = make_manifest(staged, recipe.name, False, recipe.image_size)
        except ConfigurationError as error:
            raise ConfigurationError(f"the base in {folder}: {error}") from None
        return parse_manifest(adopted.text, folder / MANIFEST_FILE)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yields a folder with the same files but heads, in which others may be written."""
    with TemporaryDirectory() as name:
        for path in folder.iterdir():
            if path.is_file() and path.name not in (HEAD, VALUE_HEAD):
                (Path(name) / path.name).symlink_to(path.absolute())
        yield Path(name)


def open_to_learn(base: Base, recipe: Recipe, device: str, dtype: torch.dtype) -> Opened:
    """Returns the base with heads and what the recipe lets learn, with the same random start for the same seed.

    `dtype` is that of the computation: weights that learn are kept in fp32 whatever it is.
    """
    adapted = recipe.tune.method == "lora"
    model, image_processor = load(base.folder, device, dtype if adapted else torch.float32)
    width = model.config.get_text_config().hidden_size
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        heads = RewardHeads(recipe.heads, width)
        outer = _with_adapter(model, recipe.tune, recipe.base) if adapted else model
    if base.trained_head:
        heads.start_from(base.trained_head)
    tokenizer = FileTokenizer(base.folder / (base.manifest.text.tokenizer or ""))
    backbone = open_backbone(model, image_processor, base.manifest.image, tokenizer)
    let_learn(backbone.base, recipe.tune)
    if recipe.learn.gradient_checkpointing:
        recompute_layers(backbone.base)
    return Opened(outer, Scorer(backbone, heads.to(device), recipe.learn.share_prompts))


def let_learn(base: nn.Module, tune: Tune) -> None:
    """Marks the weights that learn: an adapter's, or the language model's own, with the tower's where it is trained."""
    part = base if tune.method == "lora" or tune.vision == "trained" else base.get_decoder()  # type: ignore[operator]
    for name, weight in part.named_parameters():
        weight.requires_grad_(tune.method == "full" or ADAPTER in name)


def _with_adapter(model: Any, tune: Tune, name: str) -> Any:
    """Returns peft's model, with an adapter at the linear layers that the recipe means."""
    from peft import LoraConfig, get_peft_model

    part = model.model if tune.vision == "trained" else model.model.get_decoder()
    inside = {id(module) for module in part.modules()}
    places = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside and path != "lm_head"
        if not tune.lora.modules or path.rpartition(".")[2] in tune.lora.modules
    ]
    if not places:
        raise ConfigurationError(f"no linear layer of the base is named {', '.join(tune.lora.modules)}")
    config = LoraConfig(r=tune.lora.rank, lora_alpha=tune.lora.alpha, target_modules=places, lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by a name that is deprecated there
        adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = name
    return adapted
