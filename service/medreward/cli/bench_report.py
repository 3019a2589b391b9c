"""`medreward bench report`: a finished run as one HTML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from medreward.cli.options import baseline_option, departments_option, json_option, option
from medreward.cli.show import print_json, print_panel, print_table
from medreward.errors import ConfigurationError

if TYPE_CHECKING:
    from medreward.bench.cases import Case
    from medreward.bench.finished import FinishedRun
    from medreward.bench.report.examples import Texts
    from medreward.bench.report.report import Report

GATE: Final = "gate.json"
REPORT: Final = "report.html"
EXAMPLES: Final = 6


@click.command("report")
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@baseline_option
@option(
    "--gate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the gate's verdict; without it, gate.json in RUN if there is one",
)
@option("--data", metavar="DATA", help="where questions and images are now, if they were moved")
@departments_option
@option("--cases", type=click.IntRange(0), default=EXAMPLES, show_default=True, help="how many cases each list shows")
@option("--out", type=click.Path(path_type=Path), metavar="FILE", help=f"file to write; without it, {REPORT} in RUN")
@json_option
def command(
    path: Path,
    baseline: Path | None,
    gate: Path | None,
    data: str | None,
    departments: Path | None,
    cases: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """Write RUN as one HTML file that loads nothing: verdict, figures, cases that went wrong, and provenance."""
    from medreward.bench.comparing import refuse_other_cases
    from medreward.bench.finished import open_run
    from medreward.bench.report.headline import read_gate
    from medreward.bench.report.report import Report

    run = open_run(path)
    against = open_run(baseline) if baseline else None
    refuse_other_cases([run, against] if against else [run])
    file = gate or path / GATE
    report = Report.of(run, against, read_gate(file, run, against) if gate or file.exists() else None)
    target = out or path / REPORT
    write_page(target, report.page(_texts_of(run, data, departments) if cases else {}, cases))
    if as_json:
        print_json({"out": str(target), "verdict": report.decision.word, "labels": report.labels.headline})
    else:
        _print_report(report)
        click.echo(str(target))
    return 0


def write_report(path: Path, texts: "Texts") -> None:
    """Writes the report of a run that has just ended, without a baseline or a verdict."""
    from medreward.bench.finished import open_run
    from medreward.bench.report.report import Report

    write_page(path / REPORT, Report.of(open_run(path)).page(texts, EXAMPLES))


def write_page(file: Path, page: str) -> None:
    try:
        file.write_text(page, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror or error}") from None


def _texts_of(run: "FinishedRun", data: str | None, departments: Path | None) -> "Mapping[tuple[str, str], Case]":
    """Returns the cases of the run's data, none where it is no more what it was or is not there.

    Raises ConfigurationError for that where the data or the departments were named by a flag.
    """
    from medreward.bench.sources import open_set

    where = data or str(run.about.get("data"))
    try:
        whole = open_set(where, departments)
        if whole.digest != run.digest:
            raise ConfigurationError(f"{where} is not the data that {run.path} is a run on")
    except ConfigurationError as error:
        if data or departments:
            raise
        click.echo(f"the report has no questions and images, for {error}; name the data with --data", err=True)
        return {}
    return {case.key: case for case in whole.cases}


def _print_report(report: "Report") -> None:
    from medreward.bench.report.page import p_value, points, share

    labels = f"{report.labels.headline} {report.labels.detail}"
    print_panel(report.decision.word, [*report.decision.sentences, labels], report.decision.tone)
    columns = ["accuracy", "95%", "cases", "better shortcut"]
    against = ["baseline", "difference", "95%", "p (Holm)"] if report.baseline else []
    rows = []
    for row in report.facts.dimensions:
        if not row.shortcut:
            continue
        figure = row.figure
        cells = [row.name, share(figure.accuracy), f"{share(figure.low)} to {share(figure.high)}", str(figure.n)]
        cells.append(f"{share(row.shortcut.accuracy)} by {row.shortcut.name}")
        if other := row.against:
            ends = f"{points(other.difference.low)} to {points(other.difference.high)}"
            cells += [share(other.figure.accuracy), points(other.difference.value), ends, p_value(other.p)]
        rows.append(cells)
    print_table(["dimension", *columns, *against], rows, [*columns, *against])
