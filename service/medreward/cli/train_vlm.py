"""The part of `medreward train` that fine-tunes a vision-language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medreward.cli.show import print_json
from medreward.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from medreward.lab.vlm.examples import Example


def train_vlm(
    recipe_file: Path, data: Sequence[Path], benchmark: Sequence[Path], out: Path, console: "Console", as_json: bool
) -> int:
    """Trains, measures and exports; returns the exit code: 1 where the image brings too little."""
    try:
        from medreward.lab.vlm import finetune  # loads torch
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed: fine-tuning needs medreward[cpu,train]") from None
    from medreward.lab.vlm.recipe import read_recipe

    recipe = read_recipe(recipe_file)
    with console.status("reading examples"):
        examples = [example for path in data for example in read(path, recipe.data.preference)]
        measured = [example for path in benchmark for example in read(path, recipe.data.preference)]
    try:
        made = finetune.finetune(recipe_file, recipe, examples, measured, out, console)
    except finetune.TooLittleGain as error:
        click.echo(f"medreward: {error}", err=True)
        return 1
    if made is None:  # another process of this run exports
        return 0
    folder = out / finetune.MODEL
    if as_json:
        print_json({"name": made.name, "fingerprint": made.fingerprint, "folder": str(folder)})
    else:
        click.echo(f"{made.name} {made.version} in {folder}, {made.fingerprint}")
    return 0


def read(path: Path, preference: Sequence[str]) -> "list[Example]":
    """Returns the examples of a file, or of a folder in the benchmark's layout; fails for what is wrong with one."""
    from medreward.bench import layout
    from medreward.lab.vlm.rows import Source, read_file, read_rows

    if not path.is_dir():
        return [*read_file(path, preference)]
    found = layout.read(path)
    if found.fatal:
        raise ConfigurationError(
            f"{path}: {found.fatal[0]} ({len(found.fatal)} faults; `medreward bench check` lists them)"
        )
    rows = (
        {
            "image": case.image,
            "question": case.question,
            "answers": [*case.answers],
            "labels": dict(case.labels),
            "organ": case.organ,
            "evidence": case.evidence,
        }
        for case in found.cases
    )
    return [*read_rows(rows, Source(str(path), path, preference))]
