"""`medreward screen`: a policy from labelled answers, what a policy does to them, verdicts for a file."""

import importlib.util
from pathlib import Path
from typing import Final

import click

from medreward.bench.importing import LAYOUTS
from medreward.cli import screen_check, screen_fit, screen_run
from medreward.cli.extras import install
from medreward.cli.options import json_option, option
from medreward.cli.screen_data import FILE
from medreward.cli.show import print_json
from medreward.errors import ConfigurationError

NEEDED: Final = ("numpy", "scipy", "pydantic", "jinja2", "matplotlib")


@click.group("screen")
def command() -> None:
    """Screening policies: make one from labelled answers, see what it does to them, decide with it."""
    for name in NEEDED:
        if not importlib.util.find_spec(name):
            raise ConfigurationError(f"medreward screen needs {name}, which is not installed; run {install('bench')}")


command.add_command(screen_fit.command)
command.add_command(screen_check.command)
command.add_command(screen_run.command)


@command.command()
@option("--out", type=FILE, required=True, metavar="DIR", help="folder to make")
@option("--count", type=click.IntRange(1), default=300, show_default=True, help="how many pictures")
@option("--seed", type=int, default=0, show_default=True, help="another number draws other pictures")
@json_option
def example(out: Path, count: int, seed: int, as_json: bool) -> int:
    """Draw pictures with a right and a wrong answer about each, to try the other commands with.

    They show no patient, and their labels are made by rule: a policy made from them is for trying alone.
    """
    from medreward.bench.screening.example import write

    try:
        file = write(out, count, seed)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or out}: {error.strerror or error}") from None
    if as_json:
        print_json({"out": str(file), "images": count, "answers": 2 * count})
    else:
        click.echo(f"{count} images, {2 * count} answers: {file}")
    return 0


@command.command("import")
@click.argument("source", metavar="IN", type=FILE)
@click.argument("target", metavar="OUT", type=FILE)
@option("--layout", type=click.Choice([*LAYOUTS]), required=True, help="the layout of IN (docs/bench.md)")
@json_option
def import_(source: Path, target: Path, layout: str, as_json: bool) -> int:
    """Write questions and answers of a data set as labelled answers, a right and a wrong one each, into OUT (.jsonl).

    In the layout questions a wrong answer is the right one to the same question elsewhere: its label is made by rule,
    not by a physician.
    """
    from medreward.bench.screening.example import convert

    if target.suffix != ".jsonl":
        raise click.UsageError("OUT must end in .jsonl")
    try:
        answers = convert(layout, source, target)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or target}: {error.strerror or error}") from None
    if as_json:
        print_json({"out": str(target), "answers": answers})
    else:
        click.echo(f"{answers} answers: {target}")
    return 0
