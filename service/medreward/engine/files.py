"""Finds what `--model` names: a folder and its manifest, which is made in memory for a checkpoint that has none."""

import logging
import time
from pathlib import Path
from typing import Final

from medreward.artifacts.manifest import Manifest, parse_manifest, read_manifest
from medreward.artifacts.repository import HUB_ID, MANIFEST_FILE, bundled_models, resolve, verify
from medreward.errors import ConfigurationError
from medreward.settings import Settings
from medreward.workers.device.recognising import recognise

CONFIG: Final = "config.json"


def open_verified(settings: Settings) -> tuple[Path, Manifest]:
    """Returns the model's folder and manifest. Fails with a ConfigurationError when a file does not match its
    digest.
    """
    started = time.time_ns()
    folder, manifest = find(settings)
    since = 0 if (folder / MANIFEST_FILE).is_file() else started  # digests made here need no second look
    if problems := verify(folder, manifest, since):
        raise ConfigurationError(f"model {settings.model!r} refused: {'; '.join(problems.values())}")
    return folder, manifest


def find(settings: Settings) -> tuple[Path, Manifest]:
    """Returns the model's folder and manifest; fails with a ConfigurationError where there is none.

    Links are followed now, so that a worker that restarts reads the same folder.
    """
    folder = resolve(settings.model, settings.models_dir or bundled_models()).resolve()
    if not (folder / MANIFEST_FILE).is_file():
        return folder, _recognise(folder, settings)
    if settings.heads != "auto" or settings.image_size:
        raise ConfigurationError(
            f"{folder} has a {MANIFEST_FILE}, which says its heads and image size: leave out --heads and --image-size"
        )
    return folder, read_manifest(folder / MANIFEST_FILE)


def _recognise(folder: Path, settings: Settings) -> Manifest:
    """Returns a manifest that is made of the checkpoint's own files, and logs what it was taken for."""
    if not (folder / CONFIG).is_file():
        raise ConfigurationError(f"{settings.model} has no {MANIFEST_FILE}, nor the {CONFIG} of a checkpoint")
    hub = HUB_ID.fullmatch(settings.model)
    try:
        text, remarks = recognise(folder, hub["repo"].rpartition("/")[2] if hub else folder.name, settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"{settings.model} has no {MANIFEST_FILE} and is not recognised: {error}") from None
    manifest = parse_manifest(text, folder / MANIFEST_FILE)
    assert manifest.vlm
    logging.getLogger("medreward").warning(
        f"model {settings.model}: no {MANIFEST_FILE}. Taken for a {manifest.family} checkpoint with "
        f"{manifest.vlm.head or 'a verbaliser'} and its own chat template, not calibrated. "
        f"{''.join(f'{remark}. ' for remark in remarks)}`medreward models adopt` writes this down."
    )
    return manifest
