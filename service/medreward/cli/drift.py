"""`medreward drift`: whether the answers of an audit log have changed in its course."""

from pathlib import Path

import click

from medreward.cli.bench_report import write_page
from medreward.cli.extras import need_for_reports
from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table


@click.group("drift")
def command() -> None:
    """Look in an audit log for a change of scores, flags or verdicts. docs/drift.md says how."""


@command.command("report")
@click.argument("logs", metavar="AUDIT_LOG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="what is normal: an audit log, or what score-file wrote; without it, the first --window images are",
)
@option("--window", type=click.IntRange(200), default=1000, show_default=True, help="images that are normal")
@option(
    "--false-alarms",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="share of logs without a change that may raise an alarm",
)
@option(
    "--mix",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="images that are shuffled before they are tested",
)
@option("--fingerprint", metavar="SHA256", help="model whose decisions count; without it, that of the last decision")
@option("--out", type=click.Path(path_type=Path), metavar="FILE", default=Path("drift.html"), show_default=True)
@json_option
def report(
    logs: tuple[Path, ...],
    reference: Path | None,
    window: int,
    false_alarms: float,
    mix: int,
    fingerprint: str | None,
    out: Path,
    as_json: bool,
) -> int:
    """Show AUDIT_LOG to the watches that a server has, and write what they found as one HTML file that loads nothing.

    Several logs are read one after another: name them in the order of time. Exit 1 where an alarm was raised.
    """
    need_for_reports("medreward drift report")
    from medreward.bench.report.drift import drift_page
    from medreward.bench.report.replaying import replay

    found = replay(logs, reference, fingerprint, window, false_alarms, mix)
    write_page(out, drift_page(found))
    if as_json:
        print_json({**found.json(), "out": str(out)})
    else:
        rows = [[alarm.name, alarm.change, str(alarm.sample), alarm.time] for alarm in found.alarms]
        if rows:
            print_table(["what", "has become", "found at image", "time"], rows, ["found at image"])
        click.echo(f"{found.samples} images, {len(rows)} alarms; reference: {found.reference}: {out}")
    return 1 if found.alarms else 0
