"""`medreward shadow`: how often a shadow agreed with what was served."""

from pathlib import Path

import click

from medreward.cli.bench_report import write_page
from medreward.cli.extras import need_for_reports
from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table, share


@click.group("shadow")
def command() -> None:
    """Look at what a shadow decided (serve --shadow-file). docs/shadow.md says how one is kept."""


@command.command("report")
@click.argument("file", metavar="SHADOW_FILE", type=click.Path(path_type=Path))
@option("--out", type=click.Path(path_type=Path), metavar="FILE", default=Path("shadow.html"), show_default=True)
@json_option
def report(file: Path, out: Path, as_json: bool) -> int:
    """Write the agreement of SHADOW_FILE as one HTML file that loads nothing."""
    need_for_reports("medreward shadow report")
    from medreward.bench.report.agreeing import read_shadow
    from medreward.bench.report.shadow import shadow_page

    agreements = read_shadow(file)
    write_page(out, shadow_page(agreements))
    if as_json:
        print_json({"agreements": [one.json() for one in agreements], "out": str(out)})
        return 0
    for one in agreements:
        low, high = one.interval
        shares = f"{share(one.agreed / len(one.answers))}% (95%: {share(low)} to {share(high)})"
        click.echo(f"{one.answers[0].served_by} and {one.answers[0].shadow_by}: {shares} of {len(one.answers)} agree")
        rows = [[served, shadow, str(n)] for (served, shadow), n in sorted(one.outcomes.items())]
        print_table(["served", "shadow", "answers"], rows, ["answers"])
    click.echo(str(out))
    return 0
