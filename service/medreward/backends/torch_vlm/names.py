"""What the weights of a checkpoint are called in its files, by what they are called in the loaded model."""

from collections.abc import Collection
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.core_model_loading import revert_weight_conversion

from medreward.errors import ConfigurationError


def file_names(folder: Path, there: Collection[str]) -> dict[str, str]:
    """Returns the name in the files of each of the model's weights that has one, by its name in the loaded model.

    transformers renames the weights of some families when it loads and saves them, and an adapter names modules as they
    are loaded. `there` are the names in the files, which may be of either kind. No weight is read. Fails with a
    ConfigurationError for a family of which transformers puts several weights together into one.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"transformers cannot read {folder}: {error}") from error
    loaded = list(model.state_dict())
    marks = {name: torch.tensor([place]) for place, name in enumerate(loaded)}  # each weight is known by its place
    try:
        saved = revert_weight_conversion(model, marks)
        by_name = {loaded[int(mark)]: name for name, mark in saved.items()}
    except Exception as error:  # what it does with tensors of another shape is its own business
        family = config.model_type
        raise ConfigurationError(f"weights of {family} are stored otherwise than they are loaded: {error}") from error
    return {name: found for name in loaded for found in (name, by_name.get(name, name)) if found in there}
