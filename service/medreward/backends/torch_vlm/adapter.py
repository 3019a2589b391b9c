"""A LoRA adapter beside its base checkpoint, merged into it, whatever base the adapter's own config names."""

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
HEADS: Final = ("score", "classifier")  # names that peft gives modules_to_save of a classifier, whichever it has


def has_adapter(folder: Path) -> bool:
    return (folder / CONFIG).exists()


@contextmanager
def base_of(folder: Path) -> Iterator[Path]:
    """The folder as it would be without the adapter: transformers, where it sees one, loads it in its own lax way."""
    if not has_adapter(folder):
        yield folder
        return
    with TemporaryDirectory() as made:
        for path in folder.iterdir():
            if path.name not in (CONFIG, WEIGHTS):
                (Path(made) / path.name).symlink_to(path.absolute())
        yield Path(made)


def has_head(folder: Path) -> bool:
    """Whether a head was trained with the adapter and lies in its file."""
    if not (folder / WEIGHTS).exists():
        return False
    with safe_open(folder / WEIGHTS, "pt") as file:
        return f"{ADAPTED}weight" in set(file.keys())


@contextmanager
def _weights_of(folder: Path) -> Iterator[Path]:
    """Where the adapter's weights are without a head, which has no place in the backbone."""
    if not has_head(folder):
        yield folder
        return
    rest = {name: weight for name, weight in load_file(folder / WEIGHTS).items() if not name.startswith(ADAPTED)}
    with TemporaryDirectory() as made:
        save_file(rest, Path(made) / WEIGHTS)
        yield Path(made)


def merged(model: Any, folder: Path) -> Any:
    """The model with the adapter in its weights; an error unless each of the adapter's weights found its place."""
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
            config.modules_to_save = [name for name in config.modules_to_save or () if name not in HEADS] or None
            adapted = PeftModel(model, config)
            with _weights_of(folder) as weights:
                found = adapted.load_adapter(str(weights), "default", torch_device=str(model.device))
            plain = adapted.merge_and_unload(safe_merge=True)
    except ConfigurationError:
        raise
    except Exception as error:  # peft raises nothing narrower
        raise ConfigurationError(f"peft cannot merge the adapter in {folder}: {error}") from error
    for names, what in ((found.missing_keys, "has no"), (found.unexpected_keys, "has what no module takes:")):
        if names:
            raise ConfigurationError(f"the adapter in {folder} {what} {', '.join(sorted(names)[:3])}")
    return plain
