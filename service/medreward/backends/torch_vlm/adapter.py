"""A LoRA adapter beside its base checkpoint, merged into it, whatever base the adapter's own config names."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from medreward.errors import ConfigurationError

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"


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
            adapted = PeftModel(model, config)
            found = adapted.load_adapter(str(folder), "default", torch_device=str(model.device))
            plain = adapted.merge_and_unload(safe_merge=True)
    except ConfigurationError:
        raise
    except Exception as error:  # peft raises nothing narrower
        raise ConfigurationError(f"peft cannot merge the adapter in {folder}: {error}") from error
    for names, what in ((found.missing_keys, "has no"), (found.unexpected_keys, "has what no module takes:")):
        if names:
            raise ConfigurationError(f"the adapter in {folder} {what} {', '.join(sorted(names)[:3])}")
    return plain
