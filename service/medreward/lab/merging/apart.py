"""Experts kept apart: one folder with their base, an adapter and a head of each, to be served together."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from medreward.artifacts.manifest import Manifest, read_manifest
from medreward.artifacts.repository import MANIFEST_FILE
from medreward.backends.torch_vlm.adapter import CONFIG, WEIGHTS
from medreward.backends.torch_vlm.adopt import HEAD
from medreward.errors import ConfigurationError
from medreward.lab.merging.experts import Expert, open_base, open_expert
from medreward.lab.merging.lora import Lora
from medreward.lab.merging.manifests import CARD, GOLDEN, refuse_different, rewrite_manifest, what_all_allow
from medreward.lab.merging.merge import Named, copy_beside
from medreward.lab.merging.weights import backbone_files


def put_together(base: Path, named: Sequence[Named], out: Path, name: str) -> Manifest:
    """Writes base and experts into the new folder `out`, and returns its manifest.

    The base scores for the departments that no expert is for, so it must be a model with a head. Fails with a
    ConfigurationError for experts that do not fit, or that change more than an adapter can; then nothing is left.
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists; name a folder that does not exist yet")
    weights, names = open_base(base)
    general = open_expert(base, weights, names, None)
    experts = [open_expert(one.folder, weights, names, one.department) for one in named]
    refuse_different([general, *experts])
    for expert in experts:
        _refuse_more_than_lora(expert)
    out.mkdir(parents=True)
    try:
        for path in backbone_files(base):
            shutil.copyfile(path, out / path.name)
        copy_beside(base, out)
        save_file(dict(general.head), out / HEAD)
        sections = {_name_of(expert): _write_expert(expert, out) for expert in experts}
        for key in (CARD, GOLDEN):  # of the general model, which is what it was
            if (base / key).exists():
                shutil.copyfile(base / key, out / key)
        fields = read_manifest(base / MANIFEST_FILE).model_dump(
            mode="json", exclude_none=True, exclude={"files", "card", "golden", "measured"}
        )
        fields |= {"name": name, "experts": sections, "vlm": {**fields["vlm"], "head": HEAD}}
        fields |= what_all_allow([general, *experts])
        fields["provenance"] += f"; with {len(experts)} experts: " + ", ".join(
            f"{one.manifest.name} {one.manifest.version} ({one.manifest.fingerprint})" for one in experts
        )
        return rewrite_manifest(out, fields)
    except BaseException:
        shutil.rmtree(out)
        raise


def _refuse_more_than_lora(expert: Expert) -> None:
    """Fails for an expert that cannot be taken off its base again, or for which no department was named."""
    if expert.department is None:
        raise ConfigurationError(f"name the department that {expert.folder} is for, as in chest={expert.folder}")
    if not isinstance(expert.changes, Lora) or not expert.changes.is_plain:
        raise ConfigurationError(
            f"{expert.folder} cannot share its base: it changes weights themselves, and not by an adapter alone. Serve "
            "it by itself, or merge it"
        )


def _name_of(expert: Expert) -> str:
    """Returns the first of its departments, with what a manifest allows in names."""
    first = expert.name.partition(",")[0].lower()
    return re.sub(r"[^a-z0-9_-]+", "-", first).strip("-_")[:64] or "expert"


def _write_expert(expert: Expert, out: Path) -> dict[str, Any]:
    """Writes the expert's files under names of its own, and returns its section of the manifest."""
    name = _name_of(expert)
    files = {part: f"{name}.{part}" for part in ("adapter.safetensors", "adapter_config.json", "head.safetensors")}
    if any((out / file).exists() for file in files.values()):
        raise ConfigurationError(f"two experts are called {name}: give their departments other names")
    adapter = {key: w for key, w in load_file(expert.folder / WEIGHTS).items() if ".lora_" in key}
    save_file(adapter, out / files["adapter.safetensors"], {"format": "pt"})
    shutil.copyfile(expert.folder / CONFIG, out / files["adapter_config.json"])
    save_file(dict(expert.head), out / files["head.safetensors"])
    return {
        "departments": [part.strip() for part in (expert.department or "").split(",")],
        "adapter": files["adapter.safetensors"],
        "adapter_config": files["adapter_config.json"],
        "head": files["head.safetensors"],
        "calibration": {dimension: level.model_dump() for dimension, level in expert.manifest.calibration.items()},
    }
