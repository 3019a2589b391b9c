"""`medreward bench agreement`: how far the people behind the labels agree, and a model with them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medreward.cli.bench_compare import interval, share
from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table


@click.command("agreement")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="also show this run's model; may be repeated",
)
@json_option
def command(file: Path, runs: Sequence[Path], as_json: bool) -> int:
    """How far annotators agree: Cohen's and Fleiss' kappa, Krippendorff's alpha.

    FILE is JSON lines or CSV (docs/bench.md). With --run, people and models are held against the same majorities on the
    same cases.
    """
    from medreward.bench.agreement import agreement
    from medreward.bench.annotators import read
    from medreward.bench.finished import open_run

    found = agreement(read(file), [open_run(run) for run in runs])
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0


def _print(found: Mapping[str, Any]) -> None:
    click.echo(f"{found['cases']} cases, {len(found['annotators'])} annotators: {', '.join(found['annotators'])}")
    columns = ["cases", "agreement", "Fleiss' kappa", "Krippendorff's alpha", "95%"]
    print_table(["dimension", *columns], _among(found["dimensions"]), columns)
    columns = ["cases", "kappa", "95%"]
    print_table(["dimension", "first", "second", *columns], _pairs(found["dimensions"]), columns)
    columns = ["cases", "agreement", "95%", "kappa", "unanswered"]
    print_table(["dimension", "who", "with", *columns], _with(found), columns)


def _among(dimensions: Mapping[str, Any]) -> Iterator[list[str]]:
    for dimension, row in dimensions.items():
        figures = coefficient(row["fleiss"]), coefficient(row["krippendorff"]), _coefficients(row["krippendorff_ci95"])
        yield [dimension, str(row["cases"]), share(row["agreement"]), *figures]


def _pairs(dimensions: Mapping[str, Any]) -> Iterator[list[str]]:
    for dimension, among in dimensions.items():
        for row in among["pairs"]:
            figures = str(row["n"]), coefficient(row["kappa"]), _coefficients(row["kappa_ci95"])
            yield [dimension, row["first"], row["second"], *figures]


def _with(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for dimension, among in found["dimensions"].items():
        for person, row in among["with_the_others"].items():
            yield [dimension, person, f"majority without {person}", *_figures(row)]
            for run, beside in row["runs"].items():
                yield [dimension, run, f"majority without {person}", *_figures(beside)]
        for run in (run for run in found["runs"] if dimension in run["dimensions"]):
            own = run["dimensions"][dimension]
            yield [dimension, run["run"], "majority of all", *_figures(own["majority"])]
            for person, row in own["annotators"].items():
                yield [dimension, run["run"], person, *_figures(row)]


def _figures(row: Mapping[str, Any]) -> list[str]:
    agreement = share(row["agreement"]), interval(row["ci95"])
    return [str(row["n"]), *agreement, coefficient(row["kappa"]), str(row["unanswered"])]


def coefficient(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _coefficients(bounds: Sequence[float | None] | None) -> str:
    return "-" if bounds is None else " to ".join(map(coefficient, bounds))
