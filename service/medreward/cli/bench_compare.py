"""`medreward bench compare`: who is better on the same cases, and whether it could be luck."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medreward.cli.bench_report import write_page
from medreward.cli.options import json_option, option
from medreward.cli.show import interval, print_json, print_table, probability, share
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS


@click.command("compare")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, type=click.Path(path_type=Path))
@option(
    "--dimension",
    type=click.Choice([*DIMENSIONS]),
    default="overall",
    show_default=True,
    help="dimension that orders the table and whose pairs are printed; JSON and CSV have all",
)
@option(
    "--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="also write every accuracy, one a line"
)
@option(
    "--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="also write a page that loads nothing"
)
@json_option
def command(runs: Sequence[Path], dimension: str, csv_file: Path | None, html_file: Path | None, as_json: bool) -> int:
    """Compare two or more runs on the same data: accuracy, ranks and exact McNemar tests."""
    if len(runs) < 2:
        raise click.UsageError("name two runs or more")
    from medreward.bench.comparing import as_csv, compare
    from medreward.bench.finished import open_run

    compared = compare([open_run(run) for run in runs])
    if csv_file:
        try:
            csv_file.write_text(as_csv(compared), "utf-8")
        except OSError as error:
            raise ConfigurationError(f"{csv_file}: {error.strerror or error}") from None
    if html_file:
        from medreward.bench.report.leaderboard import leaderboard

        write_page(html_file, leaderboard(compared))
    if as_json:
        print_json(compared)
    else:
        _print_comparison(compared, dimension)
    return 0


def _print_comparison(compared: Mapping[str, Any], dimension: str) -> None:
    dimensions = list(compared["shortcuts"])
    if dimension not in dimensions:
        raise ConfigurationError(f"{dimension} has no labels, or not every model has it; choose another --dimension")
    labels = ", ".join(f"{count} {kind}" for kind, count in compared["evidence"].items())
    click.echo(f"{compared['cases']} cases, {compared['different_images']} images; labels: {labels}")
    ordered = sorted(compared["runs"], key=lambda run: -run["dimensions"][dimension]["accuracy"])
    print_table(["run", "rank", *dimensions, "macro"], _board(ordered, compared, dimension), [*dimensions, "macro"])
    columns = ["difference", "95%", "better", "worse", "p", "Holm", "smallest detectable"]
    pairs = [
        [
            row["first"],
            row["second"],
            f"{100 * row['difference']:+.1f}",
            interval(row["ci95"]),
            str(row["better"]),
            str(row["worse"]),
            probability(row["p"]),
            probability(row["holm"]),
            share(row["smallest_difference"]),
        ]
        for row in compared["pairs"]
        if row["dimension"] == dimension
    ]
    print_table(["first", "second", *columns], pairs, columns)
    click.echo(f"{dimension}: {_tests_in_words(compared['all_runs'][dimension])}")
    for run in ordered:
        if run["missing"]:
            click.echo(f"The model of {run['run']} has no {', '.join(run['missing'])}, which is left out for all runs.")
    click.echo(
        "Runs that share a letter do not differ (Holm over the pairs of a dimension, "
        f"{100 * compared['alpha']:g}%). Smallest detectable: a true difference of this many points would "
        "be found on these cases four times in five."
    )


def _board(runs: Iterable[Mapping[str, Any]], compared: Mapping[str, Any], dimension: str) -> list[list[str]]:
    """Returns a row for each run, and behind them one for each shortcut."""
    rows = []
    for run in runs:
        by_dimension = run["dimensions"]
        name = run["run"] if run["images"] == "own" else f"{run['run']} ({run['images']} images)"
        cells = [f"{share(row['accuracy'])} {row['group']}" for row in by_dimension.values()]
        own = by_dimension[dimension]
        rows.append([name, str(own["rank"]), *cells, share(own["macro"]["accuracy"])])
    for shortcut in ("length", "position"):
        cells = [share(row[shortcut]) for row in compared["shortcuts"].values()]
        rows.append([f"({shortcut} only)", "", *cells, ""])
    return rows


def _tests_in_words(tests: Mapping[str, Mapping[str, Any] | None]) -> str:
    names = {"cochran_q": "Cochran's Q", "friedman": "Friedman", "anova": "repeated measures ANOVA F"}
    words = []
    for name, test in tests.items():
        if test:
            statistic = "inf" if test["statistic"] is None else f"{test['statistic']:.2f}"
            p = probability(test["p"])
            words.append(f"{names[name]} {statistic}, p {p if p.startswith('<') else f'= {p}'}")
    return "; ".join(words) or "the runs do not differ on any case"
