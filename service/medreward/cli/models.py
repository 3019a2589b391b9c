"""`medreward models`: what lies in the model repository, and whether it is whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.options import heads_option, image_size_option, json_option, models_dir_option, option
from medreward.cli.show import print_json, print_table, progress_bar
from medreward.errors import ConfigurationError

if TYPE_CHECKING:  # pydantic is not for a client's install
    from medreward.artifacts.manifest import Manifest
    from medreward.settings import Settings

QUESTION: Final = "Is there a fracture?"
RESPONSE: Final = "Yes, of the left sixth rib."


@click.group("models")
def command() -> None:
    """List, inspect, verify, adopt, export and measure models on disk."""


@command.command("list")
@models_dir_option
@json_option
def list_(models_dir: Path | None, as_json: bool) -> int:
    """List the bundled models."""
    from medreward.artifacts.manifest import read_manifest
    from medreward.artifacts.repository import MANIFEST_FILE, bundled_models, list_models
    from medreward.cli.serve import read_settings

    folder = read_settings(models_dir=models_dir).models_dir or bundled_models()
    columns = ["name", "version", "evidence", "runtime", "fingerprint"]
    models, rows = [], []
    for name in list_models(folder):
        try:
            manifest = read_manifest(folder / name / MANIFEST_FILE)
        except ConfigurationError as error:
            models.append({"name": name, "error": str(error)})
            rows.append([name, "", "", "", str(error)])
            continue
        about = [name, manifest.version, str(manifest.evidence), manifest.runtime]
        models.append(dict(zip(columns, [*about, manifest.fingerprint], strict=True)))
        rows.append([*about, manifest.fingerprint.removeprefix("sha256:")[:12]])
    if as_json:
        print_json(models)
    elif models:
        print_table(columns, rows)
    else:
        click.echo(f"there are no models in {folder}", err=True)
    return 0


@command.command()
@click.argument("ref")
@models_dir_option
@heads_option
@image_size_option
@json_option
def inspect(ref: str, as_json: bool, **where: Any) -> int:
    """Show what a model is, and the text that it reads."""
    from medreward.engine.files import find

    folder, manifest = find(_settings(ref, **where))
    facts = facts_of(folder, manifest)
    if as_json:
        print_json(facts)
        return 0
    files = facts.pop("files")
    print_table(["fact", "value"], [[name, _as_text(value)] for name, value in facts.items()])
    print_table(["file", "bytes", "sha256"], [[name, *map(_as_text, file.values())] for name, file in files.items()])
    return 0


@command.command()
@click.argument("ref")
@models_dir_option
@heads_option
@image_size_option
@json_option
def verify(ref: str, as_json: bool, **where: Any) -> int:
    """Check each file against its digest; exit 1 if one differs."""
    from medreward.artifacts.repository import verify as problems_of
    from medreward.engine.files import find

    folder, manifest = find(_settings(ref, **where))
    problems = problems_of(folder, manifest)
    files = {name: problems.get(name, "ok") for name in manifest.files}
    if as_json:
        print_json({"name": manifest.name, "fingerprint": manifest.fingerprint, "ok": not problems, "files": files})
    else:
        print_table(["file", "state"], [[name, state] for name, state in files.items()])
    if problems:
        click.echo(f"medreward: model {ref!r}: {'; '.join(problems.values())}", err=True)
    return int(bool(problems))


@command.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@option("--data", type=click.Path(path_type=Path), metavar="DIR", help="folder of data sets to measure the model on")
@json_option
def export(run: Path, out: Path, data: Path | None, as_json: bool) -> int:
    """Turn a run of `medreward train` into a folder that can be served. With --data, measure it for its card."""
    from medreward.lab.training.export import export_run

    with progress_bar("answers") as progress:
        manifest = export_run(run, out, data, progress)
    if as_json:
        print_json({"name": manifest.name, "fingerprint": manifest.fingerprint, "folder": str(out)})
    else:
        click.echo(f"{manifest.name} {manifest.version} in {out}, {manifest.fingerprint}")
    return 0


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@option("--name", metavar="NAME", help="name of the model; without it, the folder's")
@heads_option
@image_size_option
@json_option
def adopt(folder: Path, name: str | None, heads: str | None, image_size: int | None, as_json: bool) -> int:
    """Write the manifest (model.toml) of a transformers checkpoint, with its own chat template as the text."""
    from medreward.artifacts.manifest import read_manifest
    from medreward.artifacts.repository import MANIFEST_FILE
    from medreward.backends.torch_vlm.adopt import adopt as write_manifest

    remarks = write_manifest(folder, name, heads == "verbaliser", image_size)
    manifest = read_manifest(folder / MANIFEST_FILE)
    if as_json:
        facts = {"name": manifest.name, "fingerprint": manifest.fingerprint, "folder": str(folder)}
        print_json({**facts, "image": manifest.image.model_dump(exclude_none=True)})
    else:
        click.echo(f"{manifest.name} in {folder}, {manifest.fingerprint}")
        click.echo(f"image: {_as_text(manifest.image.model_dump(exclude_none=True))}")
    for remark in remarks:
        click.echo(f"medreward: {remark}", err=True)
    return 0


@command.command()
@click.argument("ref")
@option(
    "--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="folder of sets, with dev_pairs.jsonl"
)
@option(
    "--phantoms",
    type=click.IntRange(2),
    default=300,
    show_default=True,
    help="how many phantoms to draw; half as many more are held out",
)
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="also write the figures, as Markdown if FILE ends in .md, else as JSON",
)
@models_dir_option
@json_option
def measure(ref: str, data: Path, phantoms: int, out: Path | None, models_dir: Path | None, as_json: bool) -> int:
    """Measure a model on dev pairs and phantoms: shares right, calibration, length, size, and more."""
    from medreward.engine.files import open_verified
    from medreward.lab.training.card import card, tables
    from medreward.lab.training.measure import measure_folder

    folder, manifest = open_verified(_settings(ref, models_dir=models_dir))
    with progress_bar("answers") as progress:
        figures = measure_folder(folder, manifest, data, progress, phantoms)
    if out:
        markdown = card(manifest.name, manifest.version, manifest.provenance, figures)
        out.write_text(markdown if out.suffix == ".md" else json.dumps(figures, indent=1) + "\n", "utf-8")
    if as_json:
        print_json(figures)
        return 0
    for table in tables(figures):
        click.echo(table.title)
        print_table(table.columns, table.rows)
        if table.note:
            click.echo(f"{table.note}\n")
    return 0


def _settings(ref: str, **where: Any) -> "Settings":
    """Returns the settings for a command on one model, with the work done in this process."""
    from medreward.cli.serve import read_settings

    return read_settings(model=ref, isolation="inline", **where)


def facts_of(folder: Path, manifest: "Manifest") -> dict[str, Any]:
    """Returns what `models inspect` shows of a model, with its template around an example as the model reads it."""
    image = "".join(manifest.vlm.image) if manifest.vlm else ""
    places = {"{image}": image, "{question}": QUESTION, "{response}": RESPONSE}
    text = "".join(places.get(piece, piece) for piece in (*manifest.text.prompt, *manifest.text.answer))
    sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else None for name in manifest.files}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "folder": str(folder),
        "fingerprint": manifest.fingerprint,
        "family": manifest.family,
        "runtime": manifest.runtime,
        "evidence": str(manifest.evidence),
        "license": manifest.license,
        "provenance": manifest.provenance,
        "image": manifest.image.model_dump(exclude_none=True),
        "max_tokens": manifest.text.max_tokens,
        "weights": {dimension: manifest.weights.get(dimension, 0.0) for dimension in manifest.dimensions},
        "viewpoints": {name: viewpoint.model_dump() for name, viewpoint in manifest.viewpoints.items()},
        "experts": {name: ", ".join(expert.departments) for name, expert in manifest.experts.items()},
        "calibration": {dimension: manifest.calibration[dimension].model_dump() for dimension in manifest.dimensions},
        "example_text": text,
        "files": {name: {"bytes": sizes[name], "sha256": digest} for name, digest in manifest.files.items()},
    }


def _as_text(value: Any) -> str:
    """Returns a value as a table shows it, and an object as `width 64, height 64`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_text(part)}" for key, part in value.items())
    return "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
