"""`medreward train`: a recipe and data to a trained reward model."""

from pathlib import Path

import click

from medreward.cli.options import json_option, option


@click.command("train")
@option(
    "--recipe",
    "recipe_file",
    required=True,
    metavar="F",
    type=click.Path(path_type=Path),
    help='what to train, and how; kind = "vlm" in it fine-tunes a vision-language model',
)
@option(
    "--data",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="folder of sets; for a vision-language model, a folder in the benchmark's layout, a .jsonl or a .parquet file",
    multiple=True,
)
@option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="the run; one that stopped goes on"
)
@option(
    "--benchmark",
    metavar="DIR",
    type=click.Path(path_type=Path),
    multiple=True,
    help="for a vision-language model: a benchmark that it will be measured on, and must not learn from",
)
@json_option
def command(recipe_file: Path, data: tuple[Path, ...], out: Path, benchmark: tuple[Path, ...], as_json: bool) -> int:
    """Train a reward model.

    A run that was stopped goes on with the same command. A vision-language model is measured when it has learnt, and
    lies in the folder model of the run, ready to be served; the command exits with 1, and exports nothing, where the
    image brings less than the recipe asks for.
    """
    from rich.console import Console

    from medreward.lab.vlm.recipe import is_vlm

    console = Console(stderr=True)
    if is_vlm(recipe_file):
        from medreward.cli.train_vlm import train_vlm

        return train_vlm(recipe_file, data, benchmark, out, console, as_json)
    if benchmark:
        raise click.UsageError("--benchmark is for recipes of kind vlm; this one learns from rows of split train alone")
    from medreward.lab.training.corpus import read_corpus
    from medreward.lab.training.recipe import read_recipe
    from medreward.lab.training.train import Run, assemble

    settings = read_recipe(recipe_file)
    with console.status("reading the sets, drawing, fitting images"):
        corpus = read_corpus(settings, data, out / "cache")
    console.print(f"{len(corpus.library.cases)} cases, {len(corpus.texts.topics)} topics, {len(corpus.dev)} dev pairs")
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.toml").write_bytes(recipe_file.read_bytes())
    Run(assemble(settings, corpus), out, console).finish()
    return 0
