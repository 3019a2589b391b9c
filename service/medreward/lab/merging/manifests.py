"""The manifest of a merged model, from those of its experts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from medreward.artifacts.manifest import Calibration, Manifest, parse_manifest
from medreward.artifacts.repository import MANIFEST_FILE, sha256_of, transformers_files
from medreward.artifacts.toml import toml
from medreward.errors import ConfigurationError
from medreward.lab.merging.experts import Expert
from medreward.lab.merging.methods import How
from medreward.types import Evidence

WEAKEST_FIRST: Final = (Evidence.NONE, Evidence.CONSTRUCTED, Evidence.PHYSICIAN)
CARD: Final = "card.md"
GOLDEN: Final = "golden.json"


def refuse_different(experts: Sequence[Expert]) -> None:
    """Fails with a ConfigurationError unless the experts read the same text and images and have the same dimensions.

    One model reads one template: what an expert learnt under another one would not be asked for.
    """
    first = experts[0].manifest
    for expert in experts[1:]:
        other = expert.manifest
        for what, ours, theirs in (
            ("dimensions", first.dimensions, other.dimensions),
            ("text", first.text, other.text),
            ("image", first.image, other.image),
            ("tokenizer", first.files.get(first.text.tokenizer or ""), other.files.get(other.text.tokenizer or "")),
        ):
            if ours != theirs:
                raise ConfigurationError(
                    f"{experts[0].folder} and {expert.folder} cannot be merged: their manifests differ in {what}"
                )


def merged_manifest(
    name: str, experts: Sequence[Expert], how: How, base: str, levels: Mapping[str, Calibration], head: str
) -> dict[str, Any]:
    """Returns the fields of the merged model's manifest, without its files."""
    first = experts[0].manifest
    shares = [weight / sum(how.weights) for weight in how.weights]
    parts = [
        f"{expert.name} by {weight:g} ({expert.manifest.name} {expert.manifest.version}, {expert.manifest.fingerprint})"
        for expert, weight in zip(experts, how.weights, strict=True)
    ]
    settings = f"density {how.density:g}, scale {how.scale:g}, seed {how.seed}"
    fields = first.model_dump(
        mode="json", exclude_none=True, exclude={"files", "card", "golden", "measured", "version"}
    )
    have_same_viewpoints = all(expert.manifest.viewpoints == first.viewpoints for expert in experts)
    return {
        **fields,
        "name": name,
        "version": "0",
        **what_all_allow(experts),
        "provenance": f"merged by {how.method} ({settings}) on {base} from {', '.join(parts)}",
        "vlm": {"image": list(first.vlm.image) if first.vlm else [], "head": head},
        "weights": {
            d: sum(s * one.manifest.weights.get(d, 0.0) for s, one in zip(shares, experts, strict=True))
            for d in first.dimensions
        },
        "viewpoints": fields["viewpoints"] if have_same_viewpoints else {},
        "calibration": {dimension: level.model_dump() for dimension, level in levels.items()},
    }


def what_all_allow(experts: Sequence[Expert]) -> dict[str, str]:
    """Returns the weakest evidence of all experts, and all of their licences: a model made of them has no better."""
    return {
        "evidence": str(min((expert.manifest.evidence for expert in experts), key=WEAKEST_FIRST.index)),
        "license": "; ".join(dict.fromkeys(expert.manifest.license for expert in experts)),
    }


def rewrite_manifest(folder: Path, fields: Mapping[str, Any]) -> Manifest:
    """Writes the manifest into the folder, with the digests of all files that are there, and returns it."""
    beside = {key: file for key, file in (("card", CARD), ("golden", GOLDEN)) if (folder / file).exists()}
    names = {path.name for path in transformers_files(folder)} | set(beside.values())
    files = {name: sha256_of(folder / name) for name in sorted(names)}
    whole = {**fields, **beside, "files": files}
    head = {key: value for key, value in whole.items() if not isinstance(value, dict)}
    tables = dict(table for key, value in whole.items() if isinstance(value, dict) for table in _tables(key, value))
    text = toml(head, tables)
    (folder / MANIFEST_FILE).write_text(text, "utf-8")
    return parse_manifest(text, folder / MANIFEST_FILE)


def _tables(name: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the table of this name with the keys of its own, then the tables within it."""
    own = {key: value for key, value in fields.items() if not isinstance(value, dict)}
    if own:
        yield name, own
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _tables(f"{name}.{key}", value)
