"""Merges a LoRA adapter into the base checkpoint beside it, whatever base the adapter's own config names."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medreward.backends.torch_vlm.heads import ADAPTED
from medreward.errors import ConfigurationError

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
CLASSIFIER_HEADS: Final = (
    "score",
    "classifier",
)  # peft's names for modules_to_save of a classifier, whichever it has


def has_adapter(folder: Path) -> bool:
    """Returns whether the checkpoint in the folder has an adapter beside it."""
    return (folder / CONFIG).exists()


@contextmanager
def base_of(folder: Path) -> Iterator[Path]:
    """Yields a folder with the checkpoint alone: transformers would load an adapter beside it, and check little of
    it.
    """
    if not has_adapter(folder):
        yield folder
        return
    with TemporaryDirectory() as base:
        for path in folder.iterdir():
            if path.name not in (CONFIG, WEIGHTS):
                (Path(base) / path.name).symlink_to(path.absolute())
        yield Path(base)


def has_head(folder: Path) -> bool:
    """Returns whether the adapter's file holds a head, which was trained with it."""
    if not (folder / WEIGHTS).exists():
        return False
    with safe_open(folder / WEIGHTS, "pt") as file:
        return f"{ADAPTED}weight" in set(file.keys())


@contextmanager
def _weights_of(folder: Path) -> Iterator[Path]:
    """Yields a folder with the adapter's weights but its head, which has no place in the backbone."""
    if not has_head(folder):
        yield folder
        return
    rest = {name: weight for name, weight in load_file(folder / WEIGHTS).items() if not name.startswith(ADAPTED)}
    with TemporaryDirectory() as headless:
        save_file(rest, Path(headless) / WEIGHTS)
        yield Path(headless)


def merge(model: Any, folder: Path) -> Any:
    """Returns the model with the adapter in its weights.

    Fails with a ConfigurationError where peft cannot merge it, or a weight of the adapter has no place or is missing.
    """
    if not (folder / WEIGHTS).exists():  # peft would look for it elsewhere
        raise ConfigurationError(f"the adapter in {folder} has no {WEIGHTS}")
    try:
        from peft import PeftConfig, PeftModel, PeftType
    except ImportError as error:
        raise ConfigurationError(f"the adapter in {folder} needs peft: pip install 'medreward[vlm]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it would say of missing weights is checked here
            config = PeftConfig.from_pretrained(str(folder))
            if config.peft_type != PeftType.LORA:
                raise ConfigurationError(f"the adapter in {folder} is {config.peft_type}, and only LoRA is merged")
            config.inference_mode = True
            config.modules_to_save = [
                name for name in config.modules_to_save or () if name not in CLASSIFIER_HEADS
            ] or None
            adapted = PeftModel(model, config)
            with _weights_of(folder) as weights:
                loaded = adapted.load_adapter(str(weights), "default", torch_device=str(model.device))
            plain = adapted.merge_and_unload(safe_merge=True)
    except ConfigurationError:
        raise
    except Exception as error:  # peft raises nothing narrower
        raise ConfigurationError(f"peft cannot merge the adapter in {folder}: {error}") from error
    for names, what in ((loaded.missing_keys, "has no"), (loaded.unexpected_keys, "has what no module takes:")):
        if names:
            raise ConfigurationError(f"the adapter in {folder} {what} {', '.join(sorted(names)[:3])}")
    return plain
