"""`medreward bench agreement`: how far the people behind the labels agree, and a model with them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medreward.cli.options import json_option, option
from medreward.cli.show import coefficient, coefficients, interval, print_json, print_table, share


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

    result = agreement(read(file), [open_run(run) for run in runs])
    if as_json:
        print_json(result)
        return 0
    click.echo(f"{result['cases']} cases, {len(result['annotators'])} annotators: {', '.join(result['annotators'])}")
    people, pairs = [], []
    for dimension, row in result["dimensions"].items():
        alpha = coefficient(row["krippendorff"]), coefficients(row["krippendorff_ci95"])
        people.append([dimension, str(row["cases"]), share(row["agreement"]), coefficient(row["fleiss"]), *alpha])
        for pair in row["pairs"]:
            kappa = coefficient(pair["kappa"]), coefficients(pair["kappa_ci95"])
            pairs.append([dimension, pair["first"], pair["second"], str(pair["n"]), *kappa])
    columns = ["cases", "agreement", "Fleiss' kappa", "Krippendorff's alpha", "95%"]
    print_table(["dimension", *columns], people, columns)
    columns = ["cases", "kappa", "95%"]
    print_table(["dimension", "first", "second", *columns], pairs, columns)
    columns = ["cases", "agreement", "95%", "kappa", "unanswered"]
    rows = [
        [
            *names,
            str(row["n"]),
            share(row["agreement"]),
            interval(row["ci95"]),
            coefficient(row["kappa"]),
            str(row["unanswered"]),
        ]
        for *names, row in who_agrees_with_whom(result)
    ]
    print_table(["dimension", "who", "with", *columns], rows, columns)
    return 0


def who_agrees_with_whom(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Gives each dimension, who was measured, with whom, and how far they agree."""
    for dimension, among in result["dimensions"].items():
        for person, row in among["with_the_others"].items():
            yield dimension, person, f"majority without {person}", row
            for run, beside in row["runs"].items():
                yield dimension, run, f"majority without {person}", beside
        for run in (run for run in result["runs"] if dimension in run["dimensions"]):
            own = run["dimensions"][dimension]
            yield dimension, run["run"], "majority of all", own["majority"]
            for person, row in own["annotators"].items():
                yield dimension, run["run"], person, row
