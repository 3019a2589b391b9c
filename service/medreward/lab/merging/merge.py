"""Experts and their base to one model that can be served."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from medreward.artifacts.manifest import Manifest
from medreward.artifacts.repository import transformers_files
from medreward.backends.torch_vlm.adapter import CONFIG
from medreward.backends.torch_vlm.adopt import HEAD
from medreward.backends.torch_vlm.heads import SCORE
from medreward.errors import ConfigurationError
from medreward.lab.merging import heads
from medreward.lab.merging.conflicts import Conflict, by_layer, conflict, whole
from medreward.lab.merging.experts import Expert, open_base, open_expert
from medreward.lab.merging.manifests import CARD, GOLDEN, merged_manifest, refuse_different, rewrite_manifest
from medreward.lab.merging.methods import How, resolve
from medreward.lab.merging.weights import Weights, added

INDEX: Final = "model.safetensors.index.json"
NOT_COPIED: Final = (GOLDEN, "measured.json", CONFIG)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Named:
    """Where an expert lies, and the department that it is for, if that was said."""

    folder: Path
    department: str | None = None


@dataclass(frozen=True)
class Merged:
    """A merged model, and how far its experts contradict each other."""

    folder: Path
    manifest: Manifest
    fields: dict[str, Any]  # of the manifest, for what is added to it
    experts: Sequence[Expert]
    conflicts: dict[str, Any]


def merge(base: Path, named: Sequence[Named], how: How, out: Path, name: str, progress: Progress) -> Merged:
    """Writes the merged model into the new folder `out`. `progress` is told (weights done, all of them).

    One weight of the base and its differences are in memory at a time, and one of the base's files. Fails with a
    ConfigurationError for experts that do not fit the base or each other; then nothing is left in `out`.
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists; name a folder that does not exist yet")
    weights, names = open_base(base)
    experts = [open_expert(one.folder, weights, names, one.department) for one in named]
    if len({expert.name for expert in experts}) < len(experts):
        raise ConfigurationError("two experts have one name: name their departments, as in chest=DIR")
    refuse_different(experts)
    shares = [weight / sum(how.weights) for weight in how.weights]
    levels = heads.common_levels([expert.manifest.calibration for expert in experts], shares)
    dimensions = experts[0].manifest.dimensions
    head = heads.merged(
        [heads.aligned(one.head, one.manifest.calibration, levels, dimensions) for one in experts], shares
    )
    fields = merged_manifest(name, experts, how, base.resolve().name, levels, HEAD)
    out.mkdir(parents=True)
    try:
        conflicts = _write_weights(weights, names, experts, how, out, progress)
        save_file(head, out / HEAD)
        copy_beside(base, out)
        (out / CARD).write_text(_card(fields), "utf-8")
        manifest = rewrite_manifest(out, fields)
    except BaseException:
        shutil.rmtree(out)
        raise
    return Merged(out, manifest, fields, experts, conflicts_json(experts, how, conflicts))


def _write_weights(
    base: Weights, names: dict[str, str], experts: Sequence[Expert], how: How, out: Path, progress: Progress
) -> dict[str, Conflict]:
    """Writes the merged backbone in files like the base's; returns the conflicts of each weight that is changed."""
    loaded = {file_name: name for name, file_name in names.items()}
    changed_by = [set(expert.changes.names) for expert in experts]
    conflicts: dict[str, Conflict] = {}
    done = 0
    for file, in_file in base.shards.items():
        shard = {}
        for file_name in in_file:
            tensor, name = base.read(file_name), loaded.get(file_name, "")
            if any(name in some for some in changed_by):
                found = [
                    e.changes.delta(name, tensor) if name in c else None
                    for e, c in zip(experts, changed_by, strict=True)
                ]
                if any(delta is not None for delta in found):
                    deltas = [torch.zeros(tensor.shape) if delta is None else delta for delta in found]
                    resolved = resolve(deltas, how, name)
                    conflicts[name] = conflict(deltas, resolved)
                    tensor = added(tensor, resolved.delta)
            shard[file_name] = tensor.contiguous()
            done += 1
            progress(done, len(base.names))
        save_file(shard, out / file, {"format": "pt"})
    return conflicts


def copy_beside(base: Path, out: Path) -> None:
    """Copies what transformers reads beside weights: configuration, tokenizer, image processor, chat template.

    An index of weights loses the heads, which are in files of their own.
    """
    weights = {path.name for path in base.glob("*.safetensors")}
    for path in transformers_files(base):
        if path.name in weights or path.name in NOT_COPIED:
            continue
        shutil.copyfile(path, out / path.name)
    if (out / INDEX).exists():
        index = json.loads((out / INDEX).read_bytes())
        index["weight_map"] = {n: f for n, f in index["weight_map"].items() if not n.startswith(SCORE)}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def conflicts_json(experts: Sequence[Expert], how: How, conflicts: dict[str, Conflict]) -> dict[str, Any]:
    """Returns the conflict report: of all weights together, of each layer, and of each weight."""
    names = [expert.name for expert in experts]
    return {
        "method": str(how.method),
        "density": how.density,
        "scale": how.scale,
        "seed": how.seed,
        "experts": dict(zip(names, how.weights, strict=True)),
        "whole": whole(conflicts.values()).as_json(names),
        "layers": [{"layer": layer, **one.as_json(names)} for layer, one in by_layer(conflicts).items()],
        "weights": [{"weight": weight, **one.as_json(names)} for weight, one in conflicts.items()],
    }


def _card(fields: dict[str, Any]) -> str:
    return (
        f"# {fields['name']}\n\nA reward model that was {fields['provenance']}.\n\n"
        "Its calibration is the mean of the experts' own, and was not measured anew: measure the model before it is "
        "served. How far the experts contradict each other stands in merge/conflicts.html.\n"
    )
