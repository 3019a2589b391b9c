"""`medreward train`: a recipe and data to a trained reward model."""

from pathlib import Path

import click

from medreward.cli.options import option


@click.command("train")
@option(
    "--recipe",
    "recipe_file",
    required=True,
    metavar="F",
    type=click.Path(path_type=Path),
    help="what to train, and how",
)
@option("--data", required=True, metavar="DIR", type=click.Path(path_type=Path), help="folder of sets", multiple=True)
@option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="the run; one that stopped goes on"
)
def command(recipe_file: Path, data: tuple[Path, ...], out: Path) -> int:
    """Train a reward model."""
    from rich.console import Console

    from medreward.lab.training.corpus import read_corpus
    from medreward.lab.training.recipe import read_recipe
    from medreward.lab.training.train import Run, assemble

    settings = read_recipe(recipe_file)
    console = Console(stderr=True)
    with console.status("reading the sets, drawing, fitting images"):
        corpus = read_corpus(settings, data, out / "cache")
    console.print(f"{len(corpus.library.cases)} cases, {len(corpus.texts.topics)} topics, {len(corpus.dev)} dev pairs")
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.toml").write_bytes(recipe_file.read_bytes())
    Run(assemble(settings, corpus), out, console).finish()
    return 0
